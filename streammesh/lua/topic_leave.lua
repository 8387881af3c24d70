#!lua flags=allow-oom
-- Ends a subscription: what the member still holds may be taken by another one at once; its consumer goes only when it holds nothing.
-- KEYS 1 prefix of shard 0
-- ARGV 1 topic  2 group ('' for a reader by cursor)  3 who
-- Returns 'ok' | 'kept' (there is more than one call can hand back: the leases of it run out by themselves)
-- Called by topics.Topics.leave
local stream, group, me = TAG .. 'topic:' .. ARGV[1], ARGV[2], ARGV[3]
if group == '' then
  redis.call('ZREM', stream .. ':readers', me)
  return 'ok'
end
local pending = redis.pcall('XPENDING', stream, group, '-', '+', 1000, me)
if pending.err then return 'ok' end
for _, p in ipairs(pending) do
  -- To a consumer that nobody is, idle for longer than any lease.
  redis.call('XCLAIM', stream, group, '-', 0, p[1], 'IDLE', 86400000, 'JUSTID')
end
if redis.call('XPENDING', stream, group, '-', '+', 1, me)[1] then return 'kept' end
redis.call('XGROUP', 'DELCONSUMER', stream, group, me)
return 'ok'
