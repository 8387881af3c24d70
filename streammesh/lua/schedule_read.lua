#!lua flags=no-writes
-- Reads a schedule, with the time.
-- KEYS 1 prefix of the shard
-- ARGV 1 name
-- Returns {ms now, its fields and values as a flat list (empty when there is none)}
-- Called by schedules.Schedules.read
return {text(clock()), redis.call('HGETALL', TAG .. 'schedule:' .. ARGV[1])}
