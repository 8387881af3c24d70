#!lua flags=allow-oom
-- Starts the occurrences of a schedule that are due, and sets when the next one is: all or none.
-- With prelude_run, prelude_schedule
-- KEYS 1 prefix of the shard
-- ARGV 1 name  2 revision and 3 occurrence (ms since 1970) that the caller reckoned with  4 the occurrence after these, ms ('' when
--      there is none)  5 when that one is due, ms  6 retention of what is replaced, ms  7 how many were missed and are left out
--      then for each occurrence to start: its id, its time (ISO-8601)
-- Returns 'ok' | 'stale' (it was fired, or changed, meanwhile; nothing changed) | 'missing' | 'unusable' (the key of the task's
--         stream holds another type; nothing was started)
-- Called by schedules.Schedules.fire
local now = clock()
local name = ARGV[1]
local key = TAG .. 'schedule:' .. name
local r = fields(redis.call('HGETALL', key))
if not r.state then
  redis.call('ZREM', TAG .. 'due', 'schedule ' .. name)
  return 'missing'
end
if r.state ~= 'active' or r.revision ~= ARGV[2] or r.next ~= ARGV[3] then return 'stale' end
if r.task and not usable(TAG .. 'tasks:' .. r.task) then return 'unusable' end
for i = 8, #ARGV, 2 do
  local busy = r.overlap ~= 'allow' and at_work(r)
  if busy and r.overlap == 'skip' then
    redis.call('HINCRBY', key, 'skipped', 1)
    event('schedule.skipped', 'schedule', name, 'occurrence', ARGV[i + 1], 'msg', r.last .. ' has not ended', 'at', iso(now))
  else
    if busy then end_last(r, ARGV[i], ARGV[6], now) end
    start_occurrence(name, r, ARGV[i], ARGV[i + 1], now)
  end
end
if ARGV[7] ~= '0' then
  redis.call('HINCRBY', key, 'missed_count', ARGV[7])
  event('schedule.missed', 'schedule', name, 'count', ARGV[7], 'msg', 'nobody was there in time', 'at', iso(now))
end
if ARGV[4] == '' then
  redis.call('HSET', key, 'state', 'ended')
  redis.call('HDEL', key, 'next', 'next_at')
  redis.call('ZREM', TAG .. 'due', 'schedule ' .. name)
else
  redis.call('HSET', key, 'next', ARGV[4], 'next_at', iso(tonumber(ARGV[4])))
  redis.call('ZADD', TAG .. 'due', ARGV[5], 'schedule ' .. name)
end
return 'ok'
