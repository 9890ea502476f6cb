-- Remove a session.
-- KEYS 7 to 9: what a large change staged; 10 to 12: the index, where it is in reach.
-- ARGV mark of this deletion, ms to keep it, '1' to take only what has expired, member, everybody's
-- member.
-- Returns: 'live' (nothing done), 'none' (there was nothing) or 'erased'; now; messages.
local now = server_time()
local done = call('LPOS', KEYS[6], ARGV[1])
if done then return {'erased', now, tonumber(call('LINDEX', KEYS[6], done + 1))} end
local fields, _, lost, over = open_session(now)
if ARGV[3] == '1' and (fields or lost) then return {'live', now, 0} end
local there = fields or lost or over
local messages = 0
if fields then
  messages = tonumber(fields[COUNT])
elseif there then
  messages = call('LLEN', KEYS[2])
end
call('UNLINK', unpack(KEYS, 1, 9))
if KEYS[10] then
  call('ZREM', KEYS[10], ARGV[4])
  call('ZREM', KEYS[11], ARGV[5])
  call('ZREM', KEYS[12], ARGV[5])
end
if not there then return {'none', now, 0} end
-- So that a repetition after a lost reply counts the same; the caller removes it.
call('RPUSH', KEYS[6], ARGV[1], string.format('%d', messages))
call('PEXPIRE', KEYS[6], ARGV[2])
return {'erased', now, messages}
