-- What a commit decides on, or the messages with certain ids.
-- ARGV token, '1' if the asker is going to write, time and stored id up to which messages are
-- counted ('' for none), how many ids to give rows of, those, ids to give times of.
-- Returns: what happened, now, state, other fields, rows (lengths, one text), times joined ('-' for
-- those that are not there), how many messages are counted, how many of the ids are done: fewer
-- than asked for where rows are far from both ends of a long log.
local token, through, through_id = ARGV[1], ARGV[3], ARGV[4]
local writes, count = ARGV[2] == '1', tonumber(ARGV[5])
local now = server_time()
local fields, free, lost = open_session(now)
if lost then return {'lost', now, lost} end
if writes then
  local blocked = obstacle(token, fields)
  if blocked then return {blocked, now} end
end
if not fields then return {'ok', now, '', {}, '', '', '', 0, #ARGV - 5} end
local low, high = visible(fields)
local ids, most = {}, #ARGV - 5
if count > 0 then most = math.max(20, math.min(most, math.floor(25000000 / (high - low + 1)))) end
for i = 6, math.min(#ARGV, 5 + most) do ids[#ids + 1] = ARGV[i] end
local times = {}
for first = 1, #ids, 1000 do
  local some = call('HMGET', KEYS[3], unpack(ids, first, math.min(first + 999, #ids)))
  for i = 1, math.min(1000, #ids - first + 1) do times[first + i - 1] = some[i] or '-' end
end
local rows, told = {}, {}
for i, id in ipairs(ids) do
  local time = times[i]
  if i <= count then
    if time ~= '-' then
      local _, row = locate(low, high, time, id)
      if row then rows[#rows + 1] = row end
    end
  else
    told[#told + 1] = time
  end
end
local counted = 0
if through ~= '' then
  counted = first_from(low, high, through, through_id) - low
  local row = call('LINDEX', KEYS[2], low + counted)
  if counted < high - low and time_of(row) == through and id_of(row) == through_id then
    counted = counted + 1
  end
end
local lengths, text = joined(rows)
return {'ok', now, fields.text, free, lengths, text, table.concat(told, ' '), counted,
  #ids}
