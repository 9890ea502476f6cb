-- A slice of a large change, out of sight of readers: the next rows of the log as it will be.
-- KEYS 7 to 9: the new log, ids and pins; for 'tail' those of the session itself.
-- ARGV token, ms of the lease, 'tail' or 'copy', rows staged so far, the old log's index to go on
-- from, '1' if more rows follow than are given here, '1' if more deletions follow, how many
-- deletions are given, then these (time and stored id) and the rows (time, stored id, '1' or '0'
-- (pinned) with the body). Both in order.
-- Returns: what happened, now, the old log's index, rows staged, how many deletions and rows of
-- those given are done.
local token, ms, mode = ARGV[1], ARGV[2], ARGV[3]
local staged, index = tonumber(ARGV[4]), tonumber(ARGV[5])
local more_rows, more_gone, count = ARGV[6] == '1', ARGV[7] == '1', tonumber(ARGV[8])
local now = server_time()
if call('GET', KEYS[5]) ~= token then return {'stale', now} end
local fields, _, lost = open_session(now)
if lost then return {'lost', now, lost} end
call('PEXPIRE', KEYS[5], ms)
local gone, given = {}, {}
for i = 1, count do gone[i] = {ARGV[7 + 2 * i], ARGV[8 + 2 * i]} end
for i = 9 + 2 * count, #ARGV, 3 do given[#given + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2]} end
local tail = mode == 'tail'
local log, ids, pins = KEYS[7], KEYS[8], KEYS[9]
local low, high = 0, 0
if tail then
  log, ids, pins = KEYS[2], KEYS[3], KEYS[4]
  if not fields then return {'stale', now} end
  local pending = tonumber(fields[PENDING])
  if pending == staged + #given then return {'ok', now, 0, pending, 0, #given} end  -- done before
  if pending ~= staged then return {'stale', now} end
else
  if fields then low, high = visible(fields) end
  if call('LLEN', log) ~= staged then return {'stale', now} end
end
index = math.max(index, low)
local rows, times, pinned = {}, {}, {}
local function emit(time, id, pin, row)
  rows[#rows + 1] = row
  times[#times + 1] = id
  times[#times + 1] = time
  if pin then
    pinned[#pinned + 1] = 0
    pinned[#pinned + 1] = string.rep('0', 19 - #time) .. time .. id
  end
end
local budget, bytes, g, p = 1000, 0, 1, 1
local old, from = {}, index
local function old_row()
  if index >= high then return nil end
  local row = old[index - from + 1]
  if not row then
    from = index
    old = call('LRANGE', KEYS[2], from, math.min(from + 99, high - 1))
    row = old[1]
  end
  return row
end
while budget > 0 and bytes < 1000000 do
  local row, new = old_row(), given[p]
  if not row and not new then break end
  if not new and more_rows then break end
  if row and not (new and not before(row, new[1], new[2])) then
    local time, id = time_of(row), id_of(row)
    if gone[g] and gone[g][1] == time and gone[g][2] == id then
      g = g + 1
    elseif not gone[g] and more_gone then
      break
    else
      local place = string.rep('0', 19 - #time) .. time .. id
      local pin = fields[PINS] ~= '0' and call('ZSCORE', KEYS[4], place)
      emit(time, id, pin, row)
      bytes = bytes + #row
    end
    index = index + 1
  else
    -- A row at the very place of an old one replaces it: that one is among the deletions.
    if row and time_of(row) == new[1] and id_of(row) == new[2] then
      if gone[g] and gone[g][1] == new[1] and gone[g][2] == new[2] then
        g = g + 1
        index = index + 1
      elseif not gone[g] and more_gone then
        break
      end
    end
    local body = sub(new[3], 2)
    emit(new[1], new[2], byte(new[3]) == 49,
      new[1] .. ' ' .. string.char(#new[2]) .. new[2] .. body)
    bytes = bytes + #body
    p = p + 1
  end
  budget = budget - 1
end
in_parts('RPUSH', log, rows)
in_parts('HSET', ids, times)
in_parts('ZADD', pins, pinned)
if tail then
  fields[PENDING] = string.format('%d', staged + #rows)
  fields[ROWS] = string.format('%d', call('LLEN', log))
  fields[IDS] = string.format('%d', call('HLEN', ids))
  fields[PINS] = string.format('%d', call('ZCARD', pins))
  store_state(fields)
  set_expiry(fields[EXPIRES], fields[EXPIRES])
else
  -- Should the writer die, the server removes what it staged.
  for i = 7, 9 do call('PEXPIRE', KEYS[i], 600000) end
end
return {'ok', now, index, staged + #rows, g - 1, p - 1}
