-- Entries of the index, by time.
-- ARGV low, high (scores), 'desc' or 'asc', limit, then for each of KEYS: how many entries to pass
-- over, the member after which to begin if it still stands at this score, that score.
-- Returns: now, then members and scores of each.
local low, high, way, limit = unpack(ARGV, 1, 4)
local replies = {server_time()}
for i, key in ipairs(KEYS) do
  local offset, after, score = unpack(ARGV, 2 + 3 * i, 4 + 3 * i)
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
  replies[i + 1] = found
end
return replies
