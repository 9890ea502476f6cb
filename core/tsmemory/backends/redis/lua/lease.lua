-- Hold a session against other writers, or let it go. KEYS[5]. ARGV token, ms; 0 lets go.
local holder = call('GET', KEYS[5])
if holder and holder ~= ARGV[1] then return {'busy', server_time()} end
if ARGV[2] == '0' then
  call('DEL', KEYS[5])
else
  call('SET', KEYS[5], ARGV[1], 'PX', ARGV[2])
end
return {'ok', server_time()}
