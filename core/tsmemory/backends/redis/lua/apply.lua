-- Write what a commit decided, if the session is still as it was loaded.
-- ARGV token, a mark of this commit, ms to keep it, the state it was decided on, the state to
-- write (without what is counted here), member, everybody's member, messages hidden at the front,
-- then counts of: fields to set, fields to remove, messages to delete, messages to write; then
-- these: name and value; name; time and stored id; old time or '-', new time, stored id, '1' or
-- '0' (pinned), body.
-- Returns: what happened, now, deleted where it was done before.
local token, mark, keep, seen, state, member, all_member, hide = unpack(ARGV, 1, 8)
local now = server_time()
-- The same commit again, after its reply was lost: what it did then is what it did.
local done = call('LPOS', KEYS[6], mark)
if done then return {'done', now, call('LINDEX', KEYS[6], done + 1)} end
local fields, free, lost, over = open_session(now)
if lost then return {'lost', now, lost} end
local blocked = obstacle(token, fields)
if blocked then return {blocked, now} end
if (fields and fields.text or '') ~= seen then return {'stale', now} end
local at = 13
local function take(count, width)
  local found = {}
  for i = 1, tonumber(count) do
    found[i] = {unpack(ARGV, at, at + width - 1)}
    at = at + width
  end
  return found
end
local set, unset = take(ARGV[9], 2), take(ARGV[10], 1)
local gone, written = take(ARGV[11], 2), take(ARGV[12], 5)

local low, high = 0, 0
if fields then low, high = visible(fields) end
-- Finding rows of a long log costs too: many at once are found in slices.
if (#gone + #written) * (high - low) > 25000000 then return {'long', now} end
-- Moving rows inside a long log costs the server by their distance from its nearer end: such a
-- change is made in slices, in a copy.
local reach = 20000
local function near(index) return index - low < reach or high - index < reach end
local work = {}
for _, one in ipairs(gone) do
  local index = locate(low, high, one[1], one[2])
  if not index then return {'lost', now, 'a message'} end
  if not near(index) then return {'long', now} end
end
for _, one in ipairs(written) do
  if one[1] ~= '-' and not locate(low, high, one[1], one[3]) then return {'lost', now, 'a message'} end
  if one[1] ~= one[2] and high > low then
    if one[1] ~= '-' and not near(locate(low, high, one[1], one[3])) then return {'long', now} end
    if not near(first_from(low, high, one[2], one[3])) then return {'long', now} end
  end
end

-- From here on it writes.
if over then call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) end
local had = fields and fields[EXPIRES] or '-'
local deleted = #gone + tonumber(hide)
local function unpin(time, id)
  call('ZREM', KEYS[4], string.rep('0', 19 - #time) .. time .. id)
end
-- A row that goes is first overwritten by a text that no row has.
local function remove(time, id)
  local index = locate(low, high, time, id)
  call('LSET', KEYS[2], index, '')
  call('LREM', KEYS[2], index - low < high - index and 1 or -1, '')
  high = high - 1
  unpin(time, id)
end
for _, one in ipairs(gone) do
  remove(one[1], one[2])
  call('HDEL', KEYS[3], one[2])
end
for _, one in ipairs(written) do
  local old, time, id, pin, body = unpack(one)
  local row = time .. ' ' .. string.char(#id) .. id .. body
  if old == time then
    call('LSET', KEYS[2], locate(low, high, time, id), row)
    unpin(time, id)
  else
    if old ~= '-' then remove(old, id) end
    local index = first_from(low, high, time, id)
    if index == high then
      call('RPUSH', KEYS[2], row)
    else
      call('LINSERT', KEYS[2], 'BEFORE', call('LINDEX', KEYS[2], index), row)
    end
    high = high + 1
    call('HSET', KEYS[3], id, time)
  end
  if pin == '1' then call('ZADD', KEYS[4], 0, string.rep('0', 19 - #time) .. time .. id) end
end
if hide ~= '0' and low + tonumber(hide) == high then
  call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
end
for _, one in ipairs(unset) do call('HDEL', KEYS[1], one[1]) end
for _, one in ipairs(set) do call('HSET', KEYS[1], one[1], one[2]) end
local new = parse_state(state)
new[ROWS] = string.format('%d', call('LLEN', KEYS[2]))
new[IDS] = string.format('%d', call('HLEN', KEYS[3]))
new[PINS] = string.format('%d', call('ZCARD', KEYS[4]))
new[PENDING] = '0'
store_state(new)
set_expiry(new[EXPIRES], had)
remember(mark, string.format('%d', deleted), keep)
if KEYS[7] then
  local keys = {KEYS[7], KEYS[8], KEYS[9]}
  list_session(keys, member, all_member, new[UPDATE], new[EXPIRES], had)
  sweep(keys, now, 2)
end
return {'ok', now, string.format('%d', deleted)}
