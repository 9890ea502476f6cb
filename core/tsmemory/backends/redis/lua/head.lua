-- A session's record. Returns: what happened, now, state, other fields.
local now = server_time()
local fields, free, lost = open_session(now)
if lost then return {'lost', now, lost} end
if not fields then return {'none', now} end
return {'ok', now, fields.text, free}
