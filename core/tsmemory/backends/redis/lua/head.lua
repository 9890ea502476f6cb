-- The records of sessions. KEYS: the head, log, ids and pins of each.
-- Returns: now, then for each session what happened, its state, other fields.
local now = server_time()
local replies = {now}
for at = 0, #KEYS - 4, 4 do
  local fields, free, lost = open_session(now, at)
  if lost then
    replies[#replies + 1] = {'lost', lost}
  elseif not fields then
    replies[#replies + 1] = {'none'}
  else
    replies[#replies + 1] = {'ok', fields.text, free}
  end
end
return replies
