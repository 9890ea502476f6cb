-- Take expired sessions off the index. KEYS: any user's sessions, all sessions, expiries. ARGV: how
-- many at most. Returns: how many.
return sweep(KEYS, server_time(), ARGV[1])
