-- Remove, a slice at a time, rows that no reader sees: hidden by a deletion, or left by a writer
-- that died within a batch.
-- ARGV token, rows to remove at most. Returns: 'busy', 'more' or 'ok'; now.
local now = server_time()
local fields, _, lost = open_session(now)
if lost then return {'lost', now, lost} end
local holder = call('GET', KEYS[5])
if holder and holder ~= ARGV[1] then return {'busy', now} end
if not fields then return {'ok', now} end
local most = tonumber(ARGV[2])
local low, high = visible(fields)
local pending = tonumber(fields[PENDING])
local some
if pending > 0 then
  local count = math.min(pending, most)
  some = call('LRANGE', KEYS[2], -count, -1)
  call('LTRIM', KEYS[2], 0, -count - 1)
  fields[PENDING] = string.format('%d', pending - count)
elseif low > 0 then
  local count = math.min(low, most)
  some = call('LRANGE', KEYS[2], 0, count - 1)
  call('LTRIM', KEYS[2], count, -1)
else
  return {'ok', now}
end
local ids, places = {}, {}
for i, row in ipairs(some) do
  local time = time_of(row)
  ids[i] = id_of(row)
  places[i] = string.rep('0', 19 - #time) .. time .. ids[i]
end
in_parts('HDEL', KEYS[3], ids)
if fields[PINS] ~= '0' then in_parts('ZREM', KEYS[4], places) end
fields[ROWS] = string.format('%d', call('LLEN', KEYS[2]))
fields[IDS] = string.format('%d', call('HLEN', KEYS[3]))
fields[PINS] = string.format('%d', call('ZCARD', KEYS[4]))
store_state(fields)
local left, limit = visible(fields)
return {(left > 0 or fields[PENDING] ~= '0') and 'more' or 'ok', now}
