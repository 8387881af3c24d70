#!lua
-- Starts runs: head, first journal record and wake-up of each, all or none.
-- With prelude_run
-- KEYS 1 prefix of the shard
-- ARGV 1 number of items, then for each: id, workflow, version, input (JSON), what to do with a known id
--        (attach | fail | replace), number of journal records to begin with after the first (signals), the records
--        (JSON), number of pairs, then pairs for the head (waiters, parent, path, close)
-- Returns one line for each: 'ok' | 'attached <state>' | 'conflict <state>'
-- Called by journal.Journal.start
local now = clock()
local verdicts = {}
local i = 2
for n = 1, tonumber(ARGV[1]) do
  local records = tonumber(ARGV[i + 5])
  local extra = i + 6 + records
  verdicts[n] = start(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], i + 6, records, extra, now)
  i = extra + 1 + 2 * tonumber(ARGV[extra])
end
return verdicts
