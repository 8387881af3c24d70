#!lua flags=allow-oom
-- A member of a group has handled a message of a topic, or could not: then it is a dead letter of `inbox`.
-- KEYS 1 prefix of shard 0
-- ARGV 1 topic  2 group  3 member  4 entry  5 'replied' | 'dead'  6 why
-- Returns 'ok' (also when it was done before) | 'lost' (another member has it now; nothing changes)
-- Called by topics.Topics.done
local stream, group, me, entry = TAG .. 'topic:' .. ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local p = redis.pcall('XPENDING', stream, group, entry, entry, 1)
if p.err or not p[1] then return 'ok' end
if p[1][2] ~= me then return 'lost' end
local at = iso(clock())
redis.call('XACK', stream, group, entry)
local got = redis.call('XRANGE', stream, entry, entry)[1]
local f = got and fields(got[2]) or {}
local dead = ARGV[5] == 'dead'
if f.correlation then
  trail(f.correlation, {what = 'heard', id = f.id, by = me, state = ARGV[5], at = at, error = dead and ARGV[6] or nil})
end
if dead then
  letter('inbox', f.id or entry, f.payload, 'message_failed', 'message ' .. ARGV[1] .. ', group ' .. group .. ': ' .. ARGV[6], text(p[1][4]),
    me, at)
end
return 'ok'
