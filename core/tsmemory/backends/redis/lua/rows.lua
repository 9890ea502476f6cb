-- Finding rows of the log.

-- Of a row that is not one: '0' and ''.
local function time_of(row)
  local space = find(row, ' ', 1, true)
  local time = space and sub(row, 1, space - 1)
  return time and find(time, '^%d+$') and time or '0'
end

local function id_of(row)
  local start = (find(row, ' ', 1, true) or #row) + 2
  return sub(row, start, start + (byte(row, start - 1) or 0) - 1)
end

local function full_id(id)
  if byte(id) ~= 255 or #id ~= 17 then return id end
  local hex = string.gsub(sub(id, 2), '.', function(c) return string.format('%02x', byte(c)) end)
  return table.concat({sub(hex, 1, 8), sub(hex, 9, 12), sub(hex, 13, 16), sub(hex, 17, 20),
    sub(hex, 21)}, '-')
end

local function id_less(a, b)
  a, b = full_id(a), full_id(b)
  for i = 1, math.min(#a, #b) do
    local x, y = byte(a, i), byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Whether the row comes before the position; with id false, before every row of that time; with
-- id true, before or at that time.
local function before(row, time, id)
  local mine = time_of(row)
  if mine ~= time then return later(time, mine) end
  if type(id) == 'boolean' then return id end
  return id_less(id_of(row), id)
end

-- The index of the first row in [low, high) that is not before the position; high where all are.
local function first_from(low, high, time, id)
  -- In a long log the server walks to an index: every second guess is made from the times.
  local goal, early, late
  if high - low > 256 then
    goal = tonumber(time)
    early = tonumber(time_of(call('LINDEX', KEYS[2], low)))
    late = tonumber(time_of(call('LINDEX', KEYS[2], high - 1)))
  end
  local by_time = true
  while low < high do
    local middle = math.floor((low + high) / 2)
    if early and by_time and late > early then
      local guess = low + math.floor((high - 1 - low) * (goal - early) / (late - early))
      middle = math.max(low, math.min(guess, high - 1))
    end
    by_time = not by_time
    local row = call('LINDEX', KEYS[2], middle)
    if before(row, time, id) then
      low = middle + 1
      early = early and tonumber(time_of(row))
    else
      high = middle
      late = late and tonumber(time_of(row))
    end
  end
  return low
end

-- The index and the row of a message; nil where the log does not have it at that time.
local function locate(low, high, time, id)
  -- Most are looked for where they were written: near the end.
  local near = math.max(low, high - 16)
  if near > low and before(call('LINDEX', KEYS[2], near), time, id) then low = near end
  local index = first_from(low, high, time, id)
  if index >= high then return nil end
  local row = call('LINDEX', KEYS[2], index)
  if time_of(row) == time and id_of(row) == id then return index, row end
end

local function visible(fields)
  local rows, pending = tonumber(fields[ROWS]), tonumber(fields[PENDING])
  return rows - pending - tonumber(fields[COUNT]), rows - pending
end

-- Rows as one text, and their lengths: parsed faster than an array.
local function joined(rows)
  local lengths = {}
  for i = 1, #rows do lengths[i] = #rows[i] end
  return table.concat(lengths, ' '), table.concat(rows)
end
