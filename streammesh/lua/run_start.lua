#!lua
-- Starts runs: head, first journal record and wake-up of each, all or none.
-- With prelude_run
-- KEYS 1 prefix of the shard
-- ARGV 1 number of items, then for each: id, workflow, version, input (JSON), what to do with a known id
--        (attach | fail | replace), number of journal records to begin with after the first (signals), the records
--        (JSON), number of pairs, then pairs for the head (waiters, parent, path, close, and the flow that it belongs to:
--        correlation causation hops via traceparent by bounds)
-- Returns one line for each: 'ok' | 'attached <state>' | 'conflict <state>' | 'refused <guard> <limit>'
-- Called by journal.Journal.start
local now = clock()
local verdicts = {}
local i = 2
for n = 1, tonumber(ARGV[1]) do
  local records = tonumber(ARGV[i + 5])
  local extra = i + 6 + records
  local head = {}
  for j = extra + 1, extra + 2 * tonumber(ARGV[extra]), 2 do head[ARGV[j]] = ARGV[j + 1] end
  local known = head.bounds and redis.call('EXISTS', TAG .. 'run:' .. ARGV[i]) == 1
  local refused = not known and bounded(head, 'task ' .. ARGV[i + 1], now)
  verdicts[n] = refused or start(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], i + 6, records, extra, now)
  if head.bounds and verdicts[n] == 'ok' then
    trail(head.correlation, {what = 'run', id = ARGV[i], name = ARGV[i + 1], causation = head.causation, hops = head.hops, by = head.by,
      at = iso(now)})
  end
  i = extra + 1 + 2 * tonumber(ARGV[extra])
end
return verdicts
