-- The last slice of a large change: all of it becomes visible.
-- KEYS 7 to 9: the new log, ids and pins; 10 to 12: the index, where it is in reach.
-- ARGV token, a mark of this commit, ms to keep it, deleted, 'tail' or 'copy', rows staged, version
-- it was decided on, state to write, member, everybody's member, counts of fields to set and to
-- remove, then these.
-- Returns: what happened, now, deleted.
local token, mark, keep, deleted, mode, staged, version, state, member, all_member =
  unpack(ARGV, 1, 10)
local now = server_time()
local done = call('LPOS', KEYS[6], mark)
if done then return {'done', now, call('LINDEX', KEYS[6], done + 1)} end
if call('GET', KEYS[5]) ~= token then return {'stale', now} end
local fields, _, lost, over = open_session(now)
if lost then return {'lost', now, lost} end
if (fields and fields[VERSION] or '0') ~= version then return {'stale', now} end
if mode == 'tail' then
  if fields[PENDING] ~= staged then return {'stale', now} end
else
  if call('LLEN', KEYS[7]) ~= tonumber(staged) then return {'stale', now} end
  call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
  if over then call('UNLINK', KEYS[1]) end
  for i = 2, 4 do
    if call('EXISTS', KEYS[i + 5]) == 1 then
      call('RENAME', KEYS[i + 5], KEYS[i])
      call('PERSIST', KEYS[i])
    end
  end
end
local had = fields and fields[EXPIRES] or '-'
local at = 13
for _ = 1, tonumber(ARGV[11]) do
  call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(ARGV[12]) do
  call('HDEL', KEYS[1], ARGV[at])
  at = at + 1
end
local new = parse_state(state)
new[ROWS] = string.format('%d', call('LLEN', KEYS[2]))
new[IDS] = string.format('%d', call('HLEN', KEYS[3]))
new[PINS] = string.format('%d', call('ZCARD', KEYS[4]))
new[PENDING] = '0'
store_state(new)
set_expiry(new[EXPIRES], had)
remember(mark, deleted, keep)
if KEYS[10] then
  local keys = {KEYS[10], KEYS[11], KEYS[12]}
  list_session(keys, member, all_member, new[UPDATE], new[EXPIRES], had)
  sweep(keys, now, 2)
end
call('DEL', KEYS[5])
return {'ok', now, deleted}
