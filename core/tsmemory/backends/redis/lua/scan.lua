-- ARGV cursor, pattern, count. One step of a scan of this node's keys; off every hot path.
return call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
