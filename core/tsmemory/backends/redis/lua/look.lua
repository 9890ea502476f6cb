-- For `verify`. ARGV index of the first row (from the first visible one), how many, bytes after
-- which to stop.
-- Returns: what happened, now, rows, and for each the time under which its id is filed and whether
-- it is pinned.
local now = server_time()
local fields, _, lost = open_session(now)
if lost then return {'lost', now, lost} end
if not fields then return {'none', now} end
local low, high = visible(fields)
local rows, filed, bytes = {}, {}, 0
local first = low + tonumber(ARGV[1])
local stop = math.min(first + tonumber(ARGV[2]), high)
while first < stop and bytes < tonumber(ARGV[3]) do
  for _, row in ipairs(call('LRANGE', KEYS[2], first, math.min(first + 19, stop - 1))) do
    rows[#rows + 1] = row
    bytes = bytes + #row
    local ok, time, id = pcall(function() return time_of(row), id_of(row) end)
    filed[#filed + 1] = ok and call('HGET', KEYS[3], id) or ''
    filed[#filed + 1] = ok and #time <= 19
      and call('ZSCORE', KEYS[4], string.rep('0', 19 - #time) .. time .. id) and '1' or ''
  end
  first = first + 20
end
return {'ok', now, rows, filed}
