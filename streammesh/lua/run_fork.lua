#!lua
-- Starts a run with records that another one made: head, journal and wake-up, all or none.
-- With prelude_run
-- KEYS 1 prefix of the shard of the new run
-- ARGV 1 new id  2 workflow  3 version  4 generation ('' for none)  5 the run that it is forked of  6 the path from which it runs anew
--      7 its first record (JSON) up to where the time of the fork goes  8 number of records that follow  9.. these (JSON)
-- Returns 'ok' | 'attached <state>' (this fork was made before) | 'conflict <state>' (there is another run of that id)
-- Called by journal.Journal.fork
local now = clock()
local at = iso(now)
local id = ARGV[1]
local key = TAG .. 'run:' .. id
local known = redis.call('HMGET', key, 'state', 'forked_of', 'forked_from')
if known[1] then
  local same = known[2] == ARGV[5] and known[3] == ARGV[6]
  return (same and 'attached ' or 'conflict ') .. known[1]
end
redis.call('HSET', key, 'state', 'queued', 'capability', ARGV[2], 'version', ARGV[3], 'started_at', at, 'forked_of', ARGV[5],
  'forked_from', ARGV[6])
if ARGV[4] ~= '' then redis.call('HSET', key, 'generation', ARGV[4]) end
redis.call('DEL', key .. ':journal', key .. ':large')
note(key, ARGV[7] .. at .. '"]]}')
for j = 9, 8 + tonumber(ARGV[8]) do note(key, ARGV[j]) end
wake(id, ARGV[2], ARGV[3], now)
event('run.forked', 'run', id, 'workflow', ARGV[2], 'msg', 'of ' .. ARGV[5] .. ' from ' .. ARGV[6], 'at', at)
return 'ok'
