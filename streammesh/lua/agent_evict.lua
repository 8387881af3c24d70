#!lua flags=allow-oom
-- Takes an agent out because an operator says so: its work moves at once, and for a day it is not let back. Where it is at work
-- after all, its next beat stops it, and the fences keep what it finishes from counting twice.
-- KEYS 1 prefix of shard 0
-- ARGV 1 id  2 who says so
-- Returns 'ok' | 'missing' (no agent of that id is registered; nothing changed)
-- With prelude_member
-- Called by registry.Registry.evict
local id, now = ARGV[1], clock()
if redis.call('EXISTS', TAG .. 'agent:' .. id) == 0 then return 'missing' end
take_out(id, 'evicted', now)
redis.call('ZADD', TAG .. 'vanished', text(now + 86400000), 'evicted ' .. id)
redis.call('PEXPIRE', TAG .. 'vanished', 86400000)
event('agent.evicted', 'agent', id, 'msg', 'by ' .. ARGV[2], 'at', iso(now))
return 'ok'
