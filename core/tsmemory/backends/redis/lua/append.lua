-- Append new messages: the short path of a commit.
-- ARGV token, the time to go by ('' for the server's), if_version or '', time to live ('' leaves
-- the session's, '-' removes it) and the same in µs, the default of both, member, everybody's
-- member, then a stored id and a body per message, its first byte '1' where it is pinned.
-- Returns: what happened, now, state, other fields, the first message's time.
local token, hint, if_version, ttl, ttl_us, default, default_us, member, all_member =
  unpack(ARGV, 1, 9)
local now = server_time()
local fields, free, lost, over = open_session(now)
if lost then return {'lost', now, lost} end
local blocked = obstacle(token, fields)
if blocked then return {blocked, now} end
for i = 2, #free, 2 do
  if not pcall(cjson.decode, free[i]) then return {'lost', now, 'a field that can be read'} end
end
if if_version ~= '' and if_version ~= (fields and fields[VERSION] or '0') then
  return {'other', now}
end
local ids = {}
for i = 10, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
if fields then
  local times = call('HMGET', KEYS[3], unpack(ids))
  for i = 1, #ids do
    if times[i] then return {'other', now} end
  end
end

-- From here on it writes.
if over then call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) end
local clock = now
if hint ~= '' and math.abs(tonumber(hint) - tonumber(now)) < 1e6 then clock = hint end
local first = clock
local had = '-'
if not fields then
  fields = {LAYOUT, clock, '0', '0', '0', '0', default, default_us, '-', '0', '0', '0', '0'}
else
  had = fields[EXPIRES]
  if not later(clock, fields[LAST]) then first = add(fields[LAST], '1') end
end
local rows, times, pins, time = {}, {}, {}, first
for i = 1, #ids do
  local id, body = ids[i], ARGV[9 + 2 * i]
  if i > 1 then time = add(time, '1') end
  rows[i] = time .. ' ' .. string.char(#id) .. id .. sub(body, 2)
  times[2 * i - 1], times[2 * i] = id, time
  if byte(body) == 49 then
    pins[#pins + 1] = 0
    pins[#pins + 1] = string.rep('0', 19 - #time) .. time .. id
  end
end
in_parts('RPUSH', KEYS[2], rows)
in_parts('HSET', KEYS[3], times)
if #pins > 0 then
  in_parts('ZADD', KEYS[4], pins)
  fields[PINS] = string.format('%d', call('ZCARD', KEYS[4]))
end
if ttl ~= '' then fields[TTL], fields[TTL_US] = ttl, ttl_us end
local expires = '-'
if fields[TTL_US] ~= '-' then expires = add(now, fields[TTL_US]) end
-- A clock that was far ahead must not keep the session first: see `engine.commit.activity`.
local update = clock
for _, other in ipairs({time, fields[UPDATE]}) do
  if later(other, update) and not later(other, add(clock, '60000000')) then update = other end
end
fields[UPDATE], fields[EXPIRES], fields[LAST] = update, expires, time
fields[VERSION] = string.format('%d', fields[VERSION] + 1)
for _, i in ipairs({COUNT, ROWS, IDS}) do fields[i] = string.format('%d', fields[i] + #ids) end
local state = store_state(fields)
set_expiry(expires, had)
if KEYS[7] then
  local keys = {KEYS[7], KEYS[8], KEYS[9]}
  list_session(keys, member, all_member, update, expires, had)
  sweep(keys, now, 2)
end
return {'ok', now, state, free, first}
