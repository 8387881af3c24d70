#!lua flags=allow-oom
-- Records how far a running attempt has come.
-- KEYS 1 prefix of the shard
-- ARGV 1 id  2 agent  3 attempt  4 progress (JSON)
-- Returns 'ok' | 'stale'
-- Called by tasks.Tasks.progress
local key = TAG .. 'task:' .. ARGV[1]
local r = redis.call('HMGET', key, 'state', 'agent', 'attempt')
if r[1] ~= 'running' or r[2] ~= ARGV[2] or r[3] ~= ARGV[3] then return 'stale' end
redis.call('HSET', key, 'progress', ARGV[4])
return 'ok'
