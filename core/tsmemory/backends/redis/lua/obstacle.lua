-- Whether a writer with this token has to wait for another, or first to repair.
local function obstacle(token, fields)
  local holder = call('GET', KEYS[5])
  if holder and holder ~= token then return 'busy' end
  if fields and token == '' then
    local hidden = fields[ROWS] - fields[COUNT] - fields[PENDING]
    if fields[PENDING] ~= '0' or hidden > 0 then return 'repair' end
  end
end

