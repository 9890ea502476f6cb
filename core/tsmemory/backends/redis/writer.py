"""The script that writes: `tsmemory.engine.commit` in Lua, under the same conformance suite.

See `_redis_scripts` for what the scripts share.
"""

from __future__ import annotations

from tsmemory.backends.redis.scripts import LIVE, TIME, script

__all__ = ["COMMIT"]

_MANY = """
local function in_parts(command, key, arguments, size)
  for first = 1, #arguments, size do
    redis.call(command, key, unpack(arguments, first, math.min(first + size - 1, #arguments)))
  end
end
"""

COMMIT = script(
    TIME,
    LIVE,
    _MANY,
    """
-- KEYS head, log, ids, pin, done; where they are in reach also the user's list and everybody's.
-- ARGV the time to go by ('' for the server's), options as JSON (see `RedisBackend`; what is left
-- out is not asked for), then for each message to append '1' or '0' (pinned) with its id, and its
-- body; for each to put the same and its time or ''; ids to delete; fields and values to set in
-- the head; fields to remove from it.
-- Returns: state, now, deleted, began, the head as it is (after, or without, the change) in two
-- parts, the times of the messages appended and put, '-' for those that were there, joined, and the
-- rows of those.
local floor, options, at = ARGV[1], cjson.decode(ARGV[2]), 2
local function take_list(count, width)
  local found = {}
  for i = 1, count or 0 do
    local one = {}
    for j = 1, width do one[j] = ARGV[at + j] end
    found[i], at = one, at + width
  end
  return found
end
local append, put = take_list(options.append, 2), take_list(options.put, 3)
local delete, set = take_list(options.delete, 1), take_list(options.set, 2)
local unset = take_list(options.unset, 1)
for _, list in ipairs({append, put}) do
  for _, one in ipairs(list) do
    one.pinned = string.byte(one[1]) == 49
    one[1] = string.sub(one[1], 2)
  end
end
local token, if_version = options.token, options.if_version
local through, patched = options.through, options.patched
local member, all_member, layout = options.member, options.all_member, options.layout

local server_now = server_time()
local now = server_now
if floor ~= '' then now = floor end
local head_key, log_key, ids_key, pin_key, done_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local head, live = {}, false
local flat = redis.call('HGETALL', head_key)
for i = 1, #flat, 2 do head[flat[i]] = flat[i + 1] end
if #flat > 0 and not over(head.expires_at, server_now) then live = true end
local free = live and free_fields(flat) or {}

local times_told, rows_told = {}, {}
local function answer(state, deleted, began)
  return {state, server_now, deleted, began, live and in_one(head) or '', free,
    table.concat(times_told), rows_told}
end

if live then
  -- A record that cannot be read is not written over.
  if head.layout ~= layout then return answer('corrupt', 0, 0) end
  for i = 2, #free, 2 do
    if not pcall(cjson.decode, free[i]) then return answer('corrupt', 0, 0) end
  end
end

local existing = {}
if live then
  local ids = {}
  for _, list in ipairs({append, put, delete}) do
    for _, one in ipairs(list) do ids[#ids + 1] = one[1] end
  end
  for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    local times = redis.call('HMGET', ids_key, unpack(ids, first, last))
    for i = first, last do
      local time = times[i - first + 1]
      if time then existing[ids[i]] = pad(time) end
    end
  end
end

-- What is there is answered with its row.
local function row_of(id, time)
  local place = time .. id
  local found = redis.call('ZRANGEBYLEX', log_key, '[' .. place .. '\\0', '(' .. place .. '\\1',
    'LIMIT', 0, 1)
  return found[1] or (place .. '\\0')
end

local function tell(time, id)
  if time then
    times_told[#times_told + 1] = time
  else
    times_told[#times_told + 1] = '-'
    rows_told[#rows_told + 1] = row_of(id, existing[id])
  end
end

if token then
  -- The same commit again, after its reply was lost: what it did then is what it did.
  local found = redis.call('LPOS', done_key, token)
  if found then
    for _, list in ipairs({append, put}) do
      for _, one in ipairs(list) do tell(not existing[one[1]] and now, one[1]) end
    end
    return answer('done', tonumber(redis.call('LINDEX', done_key, found + 1)), 0)
  end
end

if if_version then
  local actual = live and head.version or '0'
  local retry = #put == 0 and #delete == 0 and not through and not patched
  for _, one in ipairs(append) do retry = retry and existing[one[1]] end
  if actual ~= if_version and not retry then return answer('conflict', 0, 0) end
end
if not live and (options.spare or not (#append > 0 or #put > 0 or patched)) then
  return answer('done', 0, 0)
end

local last = live and pad(head.last_time) or pad('0')
local fresh, changed_rows, order, given = {}, {}, {}, {}  -- given: its time, or an id that is there
local inserted = false
local one_us = pad('1')
for _, one in ipairs(append) do
  local id = one[1]
  if not fresh[id] and not existing[id] then
    last = latest(now, plus(last, one_us))
    fresh[id] = {last, one.pinned, one[2]}
    order[#order + 1] = id
    inserted = true
  end
  given[#given + 1] = fresh[id] and {fresh[id][1]} or id
end
for _, one in ipairs(put) do
  local id, time = one[1], one[3]
  if time ~= '' then
    time = pad(time)
  elseif existing[id] then
    time = existing[id]
  else
    time = latest(now, plus(last, one_us))
  end
  last = latest(last, time)
  if existing[id] then
    if not changed_rows[id] then order[#order + 1] = id end
    changed_rows[id] = {time, one.pinned, one[2]}
  else
    if not fresh[id] then order[#order + 1] = id end
    fresh[id] = {time, one.pinned, one[2]}
    inserted = true
  end
  given[#given + 1] = {time}
end
local gone, going = {}, {}
for _, one in ipairs(delete) do
  local id = one[1]
  if existing[id] and not going[id] then
    going[id] = true
    gone[#gone + 1] = id
  end
end
local passed = 0
if through and live then passed = redis.call('ZLEXCOUNT', log_key, '-', '(' .. through) end

for _, one in ipairs(given) do
  if type(one) == 'table' then tell(one[1]) else tell(nil, one) end
end
if not (#order > 0 or #gone > 0 or passed > 0 or patched) then return answer('done', 0, 0) end

-- From here on it writes. What is left of a session that is over, or whose head was evicted, goes.
if not live then
  redis.call('UNLINK', head_key, log_key, ids_key, pin_key)
  head = {}
end

local function place_of(row)
  return string.sub(row, 1, string.find(row, '\\0', 20, true))
end
local function drop(rows)
  local ids, places = {}, {}
  for i, row in ipairs(rows) do
    places[i] = place_of(row)
    ids[i] = string.sub(places[i], 20, -2)
  end
  in_parts('HDEL', ids_key, ids, 1000)
  in_parts('ZREM', pin_key, places, 1000)
end
if passed > 0 then
  local left = redis.call('ZCARD', log_key) - passed
  if left == 0 then
    redis.call('UNLINK', log_key, ids_key, pin_key)
  elseif left <= 1000 and left < passed then
    -- Fewer stay than go: carry them over, and let the server free the rest in its own time.
    local rows = redis.call('ZRANGEBYLEX', log_key, '[' .. through, '+')
    local places = redis.call('ZRANGEBYLEX', pin_key, '[' .. through, '+')
    redis.call('UNLINK', log_key, ids_key, pin_key)
    local scored, times, pins = {}, {}, {}
    for i, row in ipairs(rows) do
      scored[2 * i - 1], scored[2 * i] = 0, row
      times[2 * i - 1] = string.sub(place_of(row), 20, -2)
      times[2 * i] = bare(string.sub(row, 1, 19))
    end
    for i, place in ipairs(places) do pins[2 * i - 1], pins[2 * i] = 0, place end
    in_parts('ZADD', log_key, scored, 1000)
    in_parts('HSET', ids_key, times, 1000)
    in_parts('ZADD', pin_key, pins, 1000)
  else
    local rest = passed
    while rest > 0 do
      local rows = redis.call('ZRANGE', log_key, 0, math.min(rest, 500) - 1)
      drop(rows)
      redis.call('ZREMRANGEBYRANK', log_key, 0, #rows - 1)
      rest = rest - #rows
    end
  end
end
local function remove(id)
  local place = existing[id] .. id
  redis.call('ZREMRANGEBYLEX', log_key, '[' .. place .. '\\0', '(' .. place .. '\\1')
  redis.call('ZREM', pin_key, place .. '\\0')
end
for _, id in ipairs(gone) do remove(id) end
in_parts('HDEL', ids_key, gone, 1000)
local scored, times, pins = {}, {}, {}
for i, id in ipairs(order) do
  local new = changed_rows[id]
  if new then remove(id) else new = fresh[id] end
  scored[2 * i - 1], scored[2 * i] = 0, new[1] .. id .. '\\0' .. new[3]
  times[2 * i - 1], times[2 * i] = id, bare(new[1])
  if new[2] then
    pins[#pins + 1] = 0
    pins[#pins + 1] = new[1] .. id .. '\\0'
  end
end
in_parts('ZADD', log_key, scored, 1000)
in_parts('HSET', ids_key, times, 1000)
in_parts('ZADD', pin_key, pins, 1000)

local count = tonumber(head.message_count or '0')
for id in pairs(fresh) do count = count + 1 end
count = count - #gone - passed
local update_time = options.update_time and pad(options.update_time)
if not update_time then
  update_time = now
  if inserted then update_time = latest(update_time, last) end
  if head.update_time then update_time = latest(update_time, pad(head.update_time)) end
end
update_time = bare(update_time)
local ttl, ttl_us = options.ttl, options.ttl_us
if not ttl and not options.no_ttl then
  if live then
    ttl, ttl_us = head.ttl, head.ttl_us
  else
    ttl, ttl_us = options.default_ttl, options.default_ttl_us
  end
end
local expires_at = options.expires_at
if not expires_at and ttl and not options.no_expiry then
  expires_at = bare(plus(server_now, pad(ttl_us)))
end

local before = head
head = {
  layout = layout,
  create_time = options.create_time or before.create_time or bare(now),
  update_time = update_time,
  version = string.format('%d', tonumber(before.version or '0') + 1),
  message_count = string.format('%d', count),
  last_time = bare(last),
  ttl = ttl,
  ttl_us = ttl_us,
  expires_at = expires_at,
}
local fields, removed = {}, {}
for field, value in pairs(head) do
  if before[field] ~= value then
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
end
for _, field in ipairs({'ttl', 'ttl_us', 'expires_at'}) do
  if before[field] and not head[field] then removed[#removed + 1] = field end
end
if options.replace_metadata then
  for field in pairs(before) do
    if string.sub(field, 1, 4) == 'meta' then removed[#removed + 1] = field end
  end
end
for _, one in ipairs(unset) do removed[#removed + 1] = one[1] end
in_parts('HDEL', head_key, removed, 1000)
for _, one in ipairs(set) do
  fields[#fields + 1] = one[1]
  fields[#fields + 1] = one[2]
end
in_parts('HSET', head_key, fields, 1000)
if patched then free = free_fields(redis.call('HGETALL', head_key)) end

if token then
  redis.call('RPUSH', done_key, token, string.format('%d', #gone + passed))
  redis.call('LTRIM', done_key, -512, -1)
  redis.call('PEXPIRE', done_key, options.keep)
end
local keys = {head_key, log_key, ids_key, pin_key}
if expires_at then
  -- Never before its time: up to the next ms, and readers look at the µs.
  local ms = string.format('%.0f', math.floor(tonumber(string.sub(pad(expires_at), 1, 16))) + 1)
  for _, key in ipairs(keys) do redis.call('PEXPIREAT', key, ms) end
  if token then
    local left = redis.call('PTTL', head_key)
    if left >= 0 and left < options.keep then redis.call('PEXPIREAT', done_key, ms) end
  end
elseif before.expires_at then
  for _, key in ipairs(keys) do redis.call('PERSIST', key) end
end
if KEYS[6] then
  redis.call('ZADD', KEYS[6], update_time, member)
  redis.call('ZADD', KEYS[7], update_time, all_member)
end
local began = live and 0 or 1
live = true
return answer('done', #gone + passed, began)
""",
)
