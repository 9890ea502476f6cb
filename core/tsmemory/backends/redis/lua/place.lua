-- Entries of the index, in a Cluster. KEYS: the user's sessions, all sessions, expiries.
-- ARGV what to do, member, everybody's member, the announced time, the true one, expiry or '-':
--   announce:  a write at this time is on its way.
--   settle:    the announced time turned out to be the true one.
--   repair:    as settle, but only if nobody has written since.
--   drop:      take it off, if nobody has written since; '' whatever happened.
-- Returns: now.
local what, member, all_member, seen, true_time, expires = unpack(ARGV)
local members = {member, all_member}
local now = server_time()
local function same(score)
  return score and seen ~= '' and tonumber(score) == tonumber(seen)
end
for i = 1, 2 do
  local score = call('ZSCORE', KEYS[i], members[i])
  if what == 'announce' then
    call('ZADD', KEYS[i], 'GT', seen, members[i])
  elseif what == 'drop' then
    if seen == '' or same(score) then
      call('ZREM', KEYS[i], members[i])
      if i == 2 then call('ZREM', KEYS[3], all_member) end
    end
  elseif same(score) or (what == 'settle' and not score) then
    call('ZADD', KEYS[i], true_time, members[i])
  elseif what == 'settle' then
    call('ZADD', KEYS[i], 'GT', true_time, members[i])
  end
end
if what == 'settle' then
  if expires ~= '-' then
    call('ZADD', KEYS[3], expires, all_member)
  else
    call('ZREM', KEYS[3], all_member)
  end
end
sweep(KEYS, now, 2)
return now
