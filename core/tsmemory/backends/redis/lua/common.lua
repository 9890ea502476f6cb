-- What the scripts share.
--
-- A *time* is a decimal text without leading zeros, µs since the epoch. Lua's numbers are doubles,
-- exact to 2^53, so a time is compared and added in two parts. Lua compares text by the server's
-- locale, so bytes are compared one by one.
--
-- A *row* of the log is "<time> ", one byte with the length of the stored id, the stored id, the
-- body. A stored id is the id, or "\xff" and the 16 bytes of a UUID.
--
-- KEYS 1 to 6 are the session's: head, log, ids, pins, lease, done. Then, where they are in reach of
-- the script, those of the index: the user's sessions, all sessions, expiries.

local LAYOUT = '2'
-- The fields of a session's state, in order.
local CREATE, UPDATE, VERSION, COUNT, LAST, TTL, TTL_US, EXPIRES, ROWS, IDS, PINS, PENDING =
  2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
local call, sub, byte, find = redis.call, string.sub, string.byte, string.find

local function server_time()
  local t = call('TIME')
  return t[1] .. string.format('%06d', t[2])
end

local function later(a, b)
  if #a ~= #b then return #a > #b end
  local x, y = tonumber(sub(a, 1, 10)), tonumber(sub(b, 1, 10))
  if x ~= y then return x > y end
  return #a > 10 and tonumber(sub(a, 11)) > tonumber(sub(b, 11))
end

local STATE = '^' .. string.rep('(%S+) ', 12) .. '(%S+)$'
-- The fields of a state, as a list.
local function parse_state(text)
  return {string.match(text, STATE)}
end

local function expired(expires, now)
  return expires ~= '-' and not later(expires, now)
end

-- The live session's state as a list, or nil; the other fields of its head, flat; what of it is
-- lost, where something is; and whether there is one that has expired. Its keys are behind `at`.
local function open_session(now, at)
  at = at or 0
  local flat = call('HGETALL', KEYS[at + 1])
  local state, free = nil, {}
  if #flat == 2 and flat[1] == 'state' then
    state = flat[2]
    flat = {}
  end
  for i = 1, #flat, 2 do
    if flat[i] == 'state' then
      state = flat[i + 1]
    else
      free[#free + 1] = flat[i]
      free[#free + 1] = flat[i + 1]
    end
  end
  if not state then
    if #flat > 0 or call('EXISTS', KEYS[at + 2], KEYS[at + 3], KEYS[at + 4]) > 0 then
      return nil, {}, 'its record'
    end
    return nil, {}
  end
  local fields = parse_state(state)
  fields.text = state
  if fields[1] ~= LAYOUT then return nil, {}, 'layout ' .. string.match(state, '^%S*') end
  if expired(fields[EXPIRES], now) then return nil, {}, nil, true end
  if call('LLEN', KEYS[at + 2]) ~= tonumber(fields[ROWS]) then
    return nil, {}, 'its messages'
  elseif call('HLEN', KEYS[at + 3]) ~= tonumber(fields[IDS]) then
    return nil, {}, 'its message ids'
  elseif fields[PINS] ~= '0' and call('ZCARD', KEYS[at + 4]) ~= tonumber(fields[PINS]) then
    return nil, {}, 'its system messages'
  end
  return fields, free
end
