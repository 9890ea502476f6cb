-- What the scripts that write share.

local function add(a, b)
  local sum = tonumber(a) + tonumber(b)
  if sum < 9e15 then return string.format('%.0f', sum) end
  local low = tonumber(sub(a, -9)) + tonumber(sub(b, -9))
  local high = (tonumber(sub(a, 1, -10)) or 0) + (tonumber(sub(b, 1, -10)) or 0)
  if low >= 1e9 then high, low = high + 1, low - 1e9 end
  return string.format('%.0f%09.0f', high, low)
end

local function in_parts(command, key, arguments)
  for first = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
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
