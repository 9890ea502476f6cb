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

local function add(a, b)
  local sum = tonumber(a) + tonumber(b)
  if sum < 9e15 then return string.format('%.0f', sum) end
  local low = tonumber(sub(a, -9)) + tonumber(sub(b, -9))
  local high = (tonumber(sub(a, 1, -10)) or 0) + (tonumber(sub(b, 1, -10)) or 0)
  if low >= 1e9 then high, low = high + 1, low - 1e9 end
  return string.format('%.0f%09.0f', high, low)
end

local STATE = '^' .. string.rep('(%S+) ', 12) .. '(%S+)$'
-- The fields of a state, as a list.
local function parse_state(text)
  return {string.match(text, STATE)}
end

local function in_parts(command, key, arguments)
  for first = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

local function expired(expires, now)
  return expires ~= '-' and not later(expires, now)
end

-- The live session's state as a list, or nil; the other fields of its head, flat; what of it is
-- lost, where something is; and whether there is one that has expired.
local function open_session(now)
  local flat = call('HGETALL', KEYS[1])
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
    if #flat > 0 or call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then
      return nil, {}, 'its record'
    end
    return nil, {}
  end
  local fields = parse_state(state)
  fields.text = state
  if fields[1] ~= LAYOUT then return nil, {}, 'layout ' .. string.match(state, '^%S*') end
  if expired(fields[EXPIRES], now) then return nil, {}, nil, true end
  if call('LLEN', KEYS[2]) ~= tonumber(fields[ROWS]) then
    return nil, {}, 'its messages'
  elseif call('HLEN', KEYS[3]) ~= tonumber(fields[IDS]) then
    return nil, {}, 'its message ids'
  elseif fields[PINS] ~= '0' and call('ZCARD', KEYS[4]) ~= tonumber(fields[PINS]) then
    return nil, {}, 'its system messages'
  end
  return fields, free
end

-- Whether a writer with this token has to wait for another, or first to repair.
local function obstacle(token, fields)
  local holder = call('GET', KEYS[5])
  if holder and holder ~= token then return 'busy' end
  if fields and token == '' then
    local hidden = fields[ROWS] - fields[COUNT] - fields[PENDING]
    if fields[PENDING] ~= '0' or hidden > 0 then return 'repair' end
  end
end

local function store_state(fields)
  local text = table.concat(fields, ' ')
  call('HSET', KEYS[1], 'state', text)
  return text
end

-- Let the server remove the session at its time: never before it, so up to the next millisecond.
local function set_expiry(expires, had)
  if expires ~= '-' then
    local ms = string.format('%.0f', math.floor(tonumber(sub(expires, 1, -4)) + 1))
    for i = 1, 4 do call('PEXPIREAT', KEYS[i], ms) end
  elseif had ~= '-' then
    for i = 1, 4 do call('PERSIST', KEYS[i]) end
  end
end

-- Remember a commit by its mark, no longer than the session lasts.
local function remember(mark, deleted, keep)
  call('RPUSH', KEYS[6], mark, deleted)
  call('LTRIM', KEYS[6], -128, -1)
  local left = call('PTTL', KEYS[1])
  if left >= 0 and left < tonumber(keep) then keep = left end
  call('PEXPIRE', KEYS[6], keep)
end
