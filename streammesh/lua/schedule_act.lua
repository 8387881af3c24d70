#!lua
-- What an operator does to a schedule.
-- With prelude_run, prelude_schedule
-- KEYS 1 prefix of the shard
-- ARGV 1 name  2 pause | resume | remove | run  3 who  4 revision that the caller reckoned with
--      resume: 5 next occurrence, ms since 1970 ('' when there is none)  6 when that is due, ms
--      run: 5 id of what is started, whatever else is at work  6 its time (ISO-8601)
-- Returns 'ok' | 'unchanged <state>' | 'stale' (it was changed meanwhile; nothing changed) | 'missing' | 'unusable'
-- Called by schedules.Schedules.act
local now = clock()
local name, verb, by = ARGV[1], ARGV[2], ARGV[3]
local key = TAG .. 'schedule:' .. name
local r = fields(redis.call('HGETALL', key))
if not r.state then return 'missing' end
local member = 'schedule ' .. name
if verb == 'pause' then
  if r.state ~= 'active' then return 'unchanged ' .. r.state end
  redis.call('ZREM', TAG .. 'due', member)
  redis.call('HSET', key, 'state', 'paused', 'paused', by)
  redis.call('HDEL', key, 'next', 'next_at')
elseif verb == 'resume' then
  if r.state ~= 'paused' then return 'unchanged ' .. r.state end
  if r.revision ~= ARGV[4] then return 'stale' end
  redis.call('HDEL', key, 'paused')
  if ARGV[5] == '' then
    redis.call('HSET', key, 'state', 'ended')
  else
    redis.call('HSET', key, 'state', 'active', 'next', ARGV[5], 'next_at', iso(tonumber(ARGV[5])))
    redis.call('ZADD', TAG .. 'due', ARGV[6], member)
  end
elseif verb == 'remove' then
  redis.call('ZREM', TAG .. 'due', member)
  redis.call('DEL', key)
  redis.call('SREM', TAG .. 'schedules', name)
elseif verb == 'run' then
  if r.task and not usable(TAG .. 'tasks:' .. r.task) then return 'unusable' end
  -- The reply was lost: it is started already.
  if r.last == ARGV[5] then return 'ok' end
  start_occurrence(name, r, ARGV[5], ARGV[6], now)
end
event('schedule.' .. verb, 'schedule', name, 'msg', 'by ' .. by, 'at', iso(now))
return 'ok'
