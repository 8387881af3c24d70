#!lua flags=allow-oom
-- Answers an open command of a run in place of whoever works on it: an operator says what came of it.
-- With prelude_run
-- KEYS 1 prefix of the shard
-- ARGV 1 run id  2 path of the command  3 its result (JSON)  4 who says so  5 a word that differs in each call, for a lost reply
-- Returns 'ok' | 'closed <state>' (the run has ended) | 'not_open' | 'missing'
-- What was set in motion is taken back, as if the workflow had dropped it; a timer fires. A stuck or paused run stays so.
-- Called by journal.Journal.skip
local now = clock()
local id, path = ARGV[1], ARGV[2]
local key = TAG .. 'run:' .. id
local r = redis.call('HMGET', key, 'state', 'open ' .. path, 'skipped')
local state = r[1]
if not state then return 'missing' end
if r[3] == ARGV[5] then return 'ok' end
if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 'closed ' .. state end
if not r[2] then return 'not_open' end
local at = iso(now)
local by = ',"by":' .. cjson.encode(ARGV[4]) .. ',"at":"' .. at .. '"}'
local record = '{"what":"done","of":' .. cjson.encode(path) .. ',"result":' .. ARGV[3] .. by
if string.sub(r[2], 1, 5) == 'timer' then record = '{"what":"fired","of":' .. cjson.encode(path) .. by end
redis.call('HSET', key, 'skipped', ARGV[5])
-- Closed first: what comes of taking it back is no answer any more.
tell(id, path, record, now)
release_command(id, path, r[2], now)
event('run.skip', 'run', id, 'msg', path .. ' by ' .. ARGV[4], 'at', at)
return 'ok'
