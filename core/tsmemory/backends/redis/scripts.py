"""The Lua that runs in the server: one script an operation, each atomic there.

The one that writes is in `_redis_commit`. What they share:

- A *time* is a text of 19 decimal digits, µs since the epoch. Lua's numbers are doubles, exact to
  2**53 only, so times are added and compared in two halves; digits compare the same way as text,
  but Lua compares text by the server's locale, so it is never asked to.
- A *row* of a session's log is ``<time><message id>NUL<body>``. All have score 0, so the set is
  in byte order: by time, then by id (UTF-8 sorts as its code points do). In the id NUL is
  ``\\x01\\x01`` and ``\\x01`` is ``\\x01\\x02``, so that NUL ends it and no id is cut by another.
- Every key comes in KEYS. The scripts use core commands of Redis 6.2 only, and nothing that
  depends on how many messages a session has, except where rows are asked for or removed.
"""

from __future__ import annotations

import hashlib

from tsmemory.backends.redis import wire

__all__ = [
    "ERASE", "GET", "HEAD", "INDEX", "LIST", "LIVE", "LOOK", "READ", "SCAN", "TIME",
]  # fmt: skip


def script(*parts: str) -> wire.Script:
    """A script that returns the number it was called with, then its reply (`wire`, 4)."""
    body = "\n".join(part.strip() for part in parts)
    text = (
        "local number = table.remove(ARGV)\nlocal function run()\n"
        f"{body}\nend\nreturn {{number, run()}}\n"
    )
    return wire.Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


TIME = """
local function server_time()
  local t = redis.call('TIME')
  return string.format('%013d%06d', t[1], t[2])
end
local function pad(s)
  return string.rep('0', 19 - #s) .. s
end
local function bare(s)
  return (string.gsub(s, '^0+(%d)', '%1'))
end
local function later(a, b)
  local x, y = tonumber(string.sub(a, 1, 10)), tonumber(string.sub(b, 1, 10))
  if x ~= y then return x > y end
  return tonumber(string.sub(a, 11)) > tonumber(string.sub(b, 11))
end
local function latest(a, b)
  if later(a, b) then return a end
  return b
end
local function plus(a, b)
  local high = tonumber(string.sub(a, 1, 10)) + tonumber(string.sub(b, 1, 10))
  local low = tonumber(string.sub(a, 11)) + tonumber(string.sub(b, 11))
  if low >= 1000000000 then high, low = high + 1, low - 1000000000 end
  return string.format('%010d%09d', high, low)
end
"""

LIVE = """
-- A head as it travels: what every head has in one text, and the other fields and values.
local common = {'layout', 'create_time', 'update_time', 'version', 'message_count', 'ttl',
  'expires_at'}
local uncommon = {layout = false, create_time = false, update_time = false, version = false,
  message_count = false, ttl = false, expires_at = false, last_time = false, ttl_us = false}
local function free_fields(flat)
  local free = {}
  for i = 1, #flat, 2 do
    if uncommon[flat[i]] == nil then
      free[#free + 1] = flat[i]
      free[#free + 1] = flat[i + 1]
    end
  end
  return free
end
local function in_one(head)
  local values = {}
  for i, field in ipairs(common) do values[i] = head[field] or '-' end
  return table.concat(values, ' ')
end
local function over(expires, now)
  return expires and not later(pad(expires), now)
end
"""

HEAD = script(
    TIME,
    LIVE,
    """
-- KEYS head. Returns: now, and the head where the session is live.
local now = server_time()
local flat = redis.call('HGETALL', KEYS[1])
local head = {}
for i = 1, #flat, 2 do head[flat[i]] = flat[i + 1] end
if #flat == 0 or over(head.expires_at, now) then return {now, '', {}} end
return {now, in_one(head), free_fields(flat)}
""",
)

READ = script(
    TIME,
    LIVE,
    """
-- KEYS head, log, pin. ARGV low, high (bounds as ZRANGEBYLEX has them), limit, 'desc' or 'asc',
-- '1' to add what is pinned before the rows, '1' if the range is the whole session, bytes after
-- which to stop, then texts: a list for each part of a filter, its length first.
-- Returns: state, whether the range is done, rows, pinned rows, position of the last row looked at.
local now = server_time()
local head = redis.call('HMGET', KEYS[1], 'message_count', 'expires_at')
if not head[1] then
  -- What expires goes together; a log without its head was taken apart (evicted).
  local left = redis.call('ZCARD', KEYS[2])
  if left > 0 then return {'lost', tostring(left)} end
  return {'none'}
end
if over(head[2], now) then return {'none'} end
local low, high, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local descending, most = ARGV[4] == 'desc', tonumber(ARGV[7])
local parts, i = {}, 8
while ARGV[i] do
  local part = {}
  for j = i + 1, i + tonumber(ARGV[i]) do part[#part + 1] = ARGV[j] end
  parts[#parts + 1] = part
  i = i + 1 + #part
end
local function broken(body)
  local ok, value = pcall(cjson.decode, body)
  return not ok or type(value) ~= 'table' or not (value.role or value.escaped)
end
-- Necessary, not sufficient: the client looks again. What does not parse is never left out.
local function may_match(row)
  local start = string.find(row, '\\0', 20, true)
  local body = string.sub(row, start + 1)
  for _, part in ipairs(parts) do
    local found = false
    for _, text in ipairs(part) do
      if string.find(body, text, 1, true) then found = true break end
    end
    if not found then
      return string.sub(body, 1, 17) == '{"v":1,"escaped":' or broken(body)
    end
  end
  return true
end
local rows, seen, bytes, last, done = {}, 0, 0, false, false
while seen < limit and bytes < most do
  local size = math.min(limit - seen, 64)
  local some
  if descending then
    some = redis.call('ZREVRANGEBYLEX', KEYS[2], high, low, 'LIMIT', 0, size)
  else
    some = redis.call('ZRANGEBYLEX', KEYS[2], low, high, 'LIMIT', 0, size)
  end
  for _, row in ipairs(some) do
    bytes = bytes + #row
    if #parts == 0 or may_match(row) then rows[#rows + 1] = row end
  end
  seen = seen + #some
  if #some > 0 then
    last = string.sub(some[#some], 1, (string.find(some[#some], '\\0', 20, true) or 20))
    if descending then
      high = '(' .. last
    else
      low = '(' .. string.sub(last, 1, -2) .. '\\1'
    end
  end
  if #some < size then done = true break end
end
if seen == 0 and ARGV[6] == '1' and head[1] ~= '0' and redis.call('EXISTS', KEYS[2]) == 0 then
  return {'lost', head[1]}
end
local pinned = {}
if ARGV[5] == '1' and last then
  for _, place in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], '-', '(' .. last)) do
    local found = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. place,
      '(' .. string.sub(place, 1, -2) .. '\\1', 'LIMIT', 0, 1)
    pinned[#pinned + 1] = found[1]
  end
end
return {'rows', done and 1 or 0, rows, pinned, last or ''}
""",
)

GET = script(
    TIME,
    LIVE,
    """
-- KEYS head, log, ids. ARGV message ids. Returns the rows of those that are there.
local head = redis.call('HMGET', KEYS[1], 'version', 'expires_at')
if not head[1] or over(head[2], server_time()) then return {} end
local rows = {}
for _, id in ipairs(ARGV) do
  local time = redis.call('HGET', KEYS[3], id)
  if time then
    local place = pad(time) .. id
    local found = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. place .. '\\0',
      '(' .. place .. '\\1', 'LIMIT', 0, 1)
    rows[#rows + 1] = found[1] or (place .. '\\0')
  end
end
return rows
""",
)

ERASE = script(
    TIME,
    LIVE,
    """
-- KEYS head, log, ids, pin, done; where they are in reach also the user's list and everybody's.
-- ARGV token, ms to keep it, 'expired' to take only what is over, member, everybody's member.
-- Returns: 'live' (nothing done), 'gone' (there was nothing) or 'erased', sessions, messages.
local found = redis.call('LPOS', KEYS[5], ARGV[1])
if found then return {'erased', 1, tonumber(redis.call('LINDEX', KEYS[5], found + 1))} end
local head = redis.call('HMGET', KEYS[1], 'version', 'expires_at')
local there = redis.call('EXISTS', KEYS[1], KEYS[2]) > 0
if ARGV[3] == 'expired' and there and not over(head[2], server_time()) then
  return {'live', 0, 0}
end
local messages = redis.call('ZCARD', KEYS[2])
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
if KEYS[6] then
  redis.call('ZREM', KEYS[6], ARGV[4])
  redis.call('ZREM', KEYS[7], ARGV[5])
end
if not there then return {'gone', 0, 0} end
-- So that a repetition after a lost reply counts the same; the caller removes it.
redis.call('RPUSH', KEYS[5], ARGV[1], string.format('%d', messages))
redis.call('PEXPIRE', KEYS[5], ARGV[2])
return {'erased', 1, messages}
""",
)

INDEX = script(
    TIME,
    """
-- KEYS a user's list, everybody's. ARGV what to do, member, everybody's member, and
--   touch n:            announce a write of n messages now; returns the time.
--   settle seen, true:  the announced score `seen` turned out to be `true`.
--   heal seen, true:    as settle, but only if nobody has written since.
--   drop seen:          take it off the list, if nobody has written since; '' whatever happened.
local what, member, all_member, seen, true_time = unpack(ARGV)
if what == 'touch' then
  local now = server_time()
  local score = bare(plus(now, pad(seen)))
  redis.call('ZADD', KEYS[1], 'GT', score, member)
  redis.call('ZADD', KEYS[2], 'GT', score, all_member)
  return now
end
local function same(score)
  return score and seen ~= '' and tonumber(score) == tonumber(seen)
end
local members = {member, all_member}
for i, key in ipairs(KEYS) do
  local score = redis.call('ZSCORE', key, members[i])
  if what == 'drop' then
    if seen == '' or same(score) then redis.call('ZREM', key, members[i]) end
  elseif same(score) or (what == 'settle' and not score) then
    redis.call('ZADD', key, true_time, members[i])
  elseif what == 'settle' then
    redis.call('ZADD', key, 'GT', true_time, members[i])
  end
end
return ''
""",
)

LIST = script(
    TIME,
    """
-- KEYS a list of sessions. ARGV low, high (scores), 'desc' or 'asc', the member after which to
-- begin if it still stands at `score`, that score, how many to pass over, limit.
-- Returns: now, members and scores.
local low, high, way, after, score, offset, limit = unpack(ARGV)
local found
if after ~= '' then
  local there = redis.call('ZSCORE', KEYS[1], after)
  if there and tonumber(there) == tonumber(score) then
    local rank = redis.call(way == 'desc' and 'ZREVRANK' or 'ZRANK', KEYS[1], after)
    found = redis.call(way == 'desc' and 'ZREVRANGE' or 'ZRANGE', KEYS[1], rank + 1,
      rank + limit, 'WITHSCORES')
  end
end
if not found then
  if way == 'desc' then
    found = redis.call('ZREVRANGEBYSCORE', KEYS[1], high, low, 'WITHSCORES', 'LIMIT', offset, limit)
  else
    found = redis.call('ZRANGEBYSCORE', KEYS[1], low, high, 'WITHSCORES', 'LIMIT', offset, limit)
  end
end
return {server_time(), found}
""",
)

LOOK = script(
    """
-- KEYS log, ids, pin. ARGV rank of the first row, how many, bytes after which to stop. For
-- `verify`.
-- Returns: counts of the three keys, rows, and for each the time its id is filed under and its pin.
local rows, bytes = {}, 0
for rank = ARGV[1], ARGV[1] + ARGV[2] - 1, 20 do
  local some = redis.call('ZRANGE', KEYS[1], rank, rank + 19)
  for _, row in ipairs(some) do
    rows[#rows + 1] = row
    bytes = bytes + #row
  end
  if #some < 20 or bytes > tonumber(ARGV[3]) then break end
end
local filed = {}
for i, row in ipairs(rows) do
  local stop = string.find(row, '\\0', 20, true)
  if stop then
    filed[2 * i - 1] = redis.call('HGET', KEYS[2], string.sub(row, 20, stop - 1)) or ''
    filed[2 * i] = redis.call('ZSCORE', KEYS[3], string.sub(row, 1, stop)) and '1' or ''
  else
    filed[2 * i - 1], filed[2 * i] = '', ''
  end
end
local counts = {redis.call('ZCARD', KEYS[1]), redis.call('HLEN', KEYS[2]),
  redis.call('ZCARD', KEYS[3])}
return {counts, rows, filed}
"""
)

SCAN = script(
    """
-- ARGV cursor, pattern, count. One step of a walk over this node's keys; off every hot path.
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
"""
)
