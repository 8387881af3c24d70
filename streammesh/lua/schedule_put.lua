#!lua
-- Makes a schedule, or changes it: its definition, and when it is next due. The same definition again changes nothing.
-- KEYS 1 prefix of the shard
-- ARGV 1 name  2 first occurrence, ms since 1970 ('' when there is none)  3 when that is due, ms  4 what an interval counts from, ms
--      then the definition as pairs, always all of them ('' for what is not given)
-- Returns 'created' | 'changed' | 'unchanged'
-- Called by schedules.Schedules.put
local now = clock()
local name = ARGV[1]
local key = TAG .. 'schedule:' .. name
local known = fields(redis.call('HGETALL', key))
local same = known.state
for i = 5, #ARGV, 2 do
  if (known[ARGV[i]] or '') ~= ARGV[i + 1] then same = false end
end
if same then return 'unchanged' end
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
local state = ARGV[2] == '' and 'ended' or known.state == 'paused' and 'paused' or 'active'
redis.call('HSET', key, 'state', state, 'anchor', ARGV[4], known.state and 'changed_at' or 'created_at', iso(now))
redis.call('HINCRBY', key, 'revision', 1)
redis.call('SADD', TAG .. 'schedules', name)
if state == 'active' then
  redis.call('HSET', key, 'next', ARGV[2], 'next_at', iso(tonumber(ARGV[2])))
  redis.call('ZADD', TAG .. 'due', ARGV[3], 'schedule ' .. name)
else
  redis.call('HDEL', key, 'next', 'next_at')
  redis.call('ZREM', TAG .. 'due', 'schedule ' .. name)
end
event('schedule.' .. (known.state and 'changed' or 'created'), 'schedule', name, 'at', iso(now))
return known.state and 'changed' or 'created'
