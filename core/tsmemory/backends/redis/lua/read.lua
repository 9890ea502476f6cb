-- Rows of a session.
-- ARGV limit, 'desc' or 'asc', first time or '', last time or '', time and stored id after which
-- to begin or '', '1' to add what is pinned before the rows, bytes after which to stop, then the
-- texts of a filter: a list for each of its parts, its length first.
-- Returns: what happened, now, state, other fields, whether the range is done, rows in chunks (each
-- in order, packed), pinned rows (packed), and the time and stored id of the last row looked at.
local limit, descending = tonumber(ARGV[1]), ARGV[2] == 'desc'
local from, to, after, after_id = unpack(ARGV, 3, 6)
local most = tonumber(ARGV[8])
local now = server_time()
local fields, free, lost = open_session(now)
if lost then return {'lost', now, lost} end
if not fields then return {'none', now} end
local parts, i = {}, 9
while ARGV[i] do
  local part = {}
  for j = i + 1, i + tonumber(ARGV[i]) do part[#part + 1] = ARGV[j] end
  parts[#parts + 1] = part
  i = i + 1 + #part
end
local low, high = visible(fields)
local first_row = low
if from ~= '' then low = first_from(low, high, from, false) end
if to ~= '' then high = first_from(low, high, to, true) end
if after ~= '' and low < high then
  local index = first_from(low, high, after, after_id)
  if descending then
    high = index
  else
    low = index
    if low < high then
      local row = call('LINDEX', KEYS[2], low)
      if time_of(row) == after and id_of(row) == after_id then low = low + 1 end
    end
  end
end

local function broken(body)
  local ok, value = pcall(cjson.decode, body)
  return not ok or type(value) ~= 'table' or not (value.role or value.escaped)
end
-- Necessary, not sufficient: the client looks again. What does not parse is never left out.
local function may_match(row)
  local body = sub(row, find(row, ' ', 1, true) + 2 + #id_of(row))
  for _, part in ipairs(parts) do
    local found = false
    for _, text in ipairs(part) do
      if find(body, text, 1, true) then found = true break end
    end
    if not found then return sub(body, 1, 17) == '{"v":1,"escaped":' or broken(body) end
  end
  return true
end

local chunks, seen, bytes, last, earliest = {}, 0, 0, nil, high
while seen < limit and bytes < most and low < high do
  local size = math.min(limit - seen, 128, high - low)
  local some
  if descending then
    high = high - size
    some = call('LRANGE', KEYS[2], high, high + size - 1)
    last, earliest = some[1], high
  else
    some = call('LRANGE', KEYS[2], low, low + size - 1)
    last, low = some[size], low + size
  end
  seen = seen + size
  if #parts > 0 then
    local rows = {}
    for i = 1, size do
      bytes = bytes + #some[i]
      if may_match(some[i]) then rows[#rows + 1] = some[i] end
    end
    some = rows
  end
  if #some > 0 then
    local text = cmsgpack.pack(some)
    chunks[#chunks + 1] = text
    if #parts == 0 then bytes = bytes + #text end
  end
end
local pinned = {}
if ARGV[7] == '1' and fields[PINS] ~= '0' and earliest > first_row and seen > 0 then
  for _, place in ipairs(call('ZRANGE', KEYS[4], 0, -1)) do
    local time, id = string.gsub(sub(place, 1, 19), '^0+(%d)', '%1'), sub(place, 20)
    -- Hidden and pending ones are not found in what is visible.
    local index, row = locate(first_row, earliest, time, id)
    if index then pinned[#pinned + 1] = row end
  end
end
return {'ok', now, fields.text, free, low < high and 0 or 1, chunks,
  #pinned > 0 and cmsgpack.pack(pinned) or '', last and time_of(last) or '', last and id_of(last) or ''}
