-- The index of sessions. `keys` are a shard's: the user's sessions, all sessions, expiries.

local function unescape_id(text)
  return (string.gsub(text, '\1(.)', function(c) return c == '\1' and '\0' or '\1' end))
end

-- Take off what has expired, no more than `most` entries.
local function sweep(keys, now, most)
  local over = call('ZRANGEBYSCORE', keys[3], '-inf', now, 'LIMIT', 0, most)
  for _, member in ipairs(over) do
    local stop = find(member, '\0', 1, true)
    local user = sub(keys[2], 1, -4) .. 'user:' .. unescape_id(sub(member, 1, stop - 1))
    call('ZREM', user, unescape_id(sub(member, stop + 1)))
    call('ZREM', keys[2], member)
    call('ZREM', keys[3], member)
  end
  return #over
end

local function list_session(keys, member, all_member, update, expires, had)
  call('ZADD', keys[1], update, member)
  call('ZADD', keys[2], update, all_member)
  if expires ~= '-' then
    call('ZADD', keys[3], expires, all_member)
  elseif had ~= '-' then
    call('ZREM', keys[3], all_member)
  end
end
