#!lua flags=allow-oom
-- Delivers a signal or a request to cancel to a run; wakes it in the same step.
-- With prelude_run
-- KEYS 1 prefix of the shard
-- ARGV 1 run id  2 what (signal | cancel)  3 name of the signal, or who cancels  4 payload (JSON)  5 id of the signal ('' for none)
-- Returns 'ok' | 'duplicate' (a signal of that id was accepted before) | 'closed' | 'missing'
-- Called by journal.Journal.deliver
local now = clock()
local key = TAG .. 'run:' .. ARGV[1]
local state = redis.call('HGET', key, 'state')
if not state then return 'missing' end
if state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 'closed' end
if ARGV[5] ~= '' and redis.call('HSETNX', key, 'signal ' .. ARGV[5], '1') == 0 then return 'duplicate' end
local record
if ARGV[2] == 'signal' then
  record = '{"what":"signal","name":' .. cjson.encode(ARGV[3]) .. ',"payload":' .. ARGV[4] .. ',"at":"' .. iso(now) .. '"}'
else
  record = '{"what":"cancel","by":' .. cjson.encode(ARGV[3]) .. ',"at":"' .. iso(now) .. '"}'
end
tell(ARGV[1], '', record, now)
return 'ok'
