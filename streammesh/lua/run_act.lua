#!lua flags=allow-oom
-- What an operator does to a run.
-- With prelude_run
-- KEYS 1 prefix of the shard
-- ARGV 1 run id  2 terminate | pause | resume  3 who  4 retention ms
-- Returns 'ok' | 'closed <state>' | 'unchanged <state>' | 'missing'
-- Called by journal.Journal.act
local now = clock()
local id, verb, by = ARGV[1], ARGV[2], ARGV[3]
local key = TAG .. 'run:' .. id
local r = redis.call('HMGET', key, 'state', 'entry', 'capability', 'version')
local state = r[1]
if not state then return 'missing' end
if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 'closed ' .. state end
local stream = runs_of(r[3], r[4])
local function unschedule()
  if r[2] then
    redis.pcall('XACK', stream, 'agents', r[2])
    redis.call('XDEL', stream, r[2])
  end
end
if verb == 'terminate' then
  unschedule()
  finish_run(id, 'cancelled', 'terminated by ' .. by, ARGV[4], now)
elseif verb == 'pause' then
  if state == 'paused' then return 'unchanged paused' end
  -- A running execution finds itself fenced at its next commit, and what it had not committed runs again later.
  unschedule()
  redis.call('HSET', key, 'state', 'paused', 'agent', '', 'paused', by)
elseif verb == 'resume' then
  if state ~= 'paused' and state ~= 'stuck' then return 'unchanged ' .. state end
  redis.call('HDEL', key, 'paused', 'error', 'deaths')
  wake(id, r[3], r[4], now)
end
event('run.' .. verb, 'run', id, 'msg', 'by ' .. by, 'at', iso(now))
return 'ok'
