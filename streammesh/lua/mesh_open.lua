#!lua flags=allow-oom
-- Creates a mesh, or reads what it is.
-- KEYS 1 prefix of shard 0
-- ARGV 1 layout version  2 shards to create it with
-- Returns {'ok' | 'created', layout, shards, 'movable' for a mesh under test whose clock may be moved, else ''}
-- Called by rooms.Rooms._open
local meta = TAG .. 'meta'
local known = redis.call('HMGET', meta, 'layout', 'shards', 'clock')
if known[1] then return {'ok', known[1], known[2], known[3] or ''} end
redis.call('HSET', meta, 'layout', ARGV[1], 'shards', ARGV[2], 'created_at', iso(clock()))
return {'created', ARGV[1], ARGV[2], ''}
