-- Entries of the index, by time.
-- ARGV low, high (scores), 'desc' or 'asc', limit of each list, of all together (0: none), then for
-- each of KEYS: how many entries to pass over, the member after which to begin if it still stands at
-- this score, that score.
-- Returns: now, how many entries each list had, then members and scores of each; of those not the
-- ones behind the limit of all.
local low, high, way, limit, size = unpack(ARGV, 1, 5)
local counts, lists, scores = {}, {}, {}
for i, key in ipairs(KEYS) do
  local offset, after, score = unpack(ARGV, 3 + 3 * i, 5 + 3 * i)
  local found
  if after ~= '' then
    local there = call('ZSCORE', key, after)
    if there and tonumber(there) == tonumber(score) then
      local rank = call(way == 'desc' and 'ZREVRANK' or 'ZRANK', key, after)
      found = call(way == 'desc' and 'ZREVRANGE' or 'ZRANGE', key, rank + 1, rank + limit,
        'WITHSCORES')
    end
  end
  if not found then
    if way == 'desc' then
      found = call('ZREVRANGEBYSCORE', key, high, low, 'WITHSCORES', 'LIMIT', offset, limit)
    else
      found = call('ZRANGEBYSCORE', key, low, high, 'WITHSCORES', 'LIMIT', offset, limit)
    end
  end
  counts[i], lists[i] = #found / 2, found
  for j = 2, #found, 2 do scores[#scores + 1] = tonumber(found[j]) end
end
size = tonumber(size)
if size > 0 and #scores > size then
  local descending = way == 'desc'
  table.sort(scores, descending and function(a, b) return a > b end or nil)
  local last = scores[size]
  for _, found in ipairs(lists) do
    while #found > 0 do
      local score = tonumber(found[#found])
      if score == last or descending == (score > last) then break end
      found[#found] = nil
      found[#found] = nil
    end
  end
end
return {server_time(), counts, unpack(lists)}
