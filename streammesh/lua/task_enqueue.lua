#!lua
-- Enqueues a batch of tasks: record and entry (or due time) of each, all or none.
-- KEYS 1 prefix of the shard  2.. streams that the items name
-- ARGV 1 number of items, then for each: index into KEYS of its stream, capability, id, payload (JSON),
--        when ('' now | '+ms' from now | ms since 1970), number of pairs, then the pairs (name, value). Pairs go into the
--        record; `waiters priority to chosen` stay there, `header.x` is `x` in the entry, `deadline` may be '+ms' and then an upper
--        limit, `bounds` ('hops count fan_out') is what its flow is held to
-- Returns one word for each: 'ok' | 'duplicate <state>' | 'conflict <state>' (known id, other payload; nothing changed;
--         the state is `unusable` where the key of the record holds another type) | 'refused <guard> <limit>' (its flow has
--         come to a boundary: hops deadline tasks)
-- Called by tasks.Tasks.enqueue
local now = clock()
local at = iso(now)
local kinds = {}
for s = 2, #KEYS do
  kinds[KEYS[s]] = usable(KEYS[s])
  if not kinds[KEYS[s]] then return redis.error_reply('WRONGTYPE ' .. KEYS[s] .. ' is not a stream') end
end
local verdicts, none = {}, {}
local i = 2
for n = 1, tonumber(ARGV[1]) do
  local stream = KEYS[tonumber(ARGV[i])]
  local count = 2 * tonumber(ARGV[i + 5])
  local extra = none
  if count > 0 then
    extra = {}
    for j = 1, count do extra[j] = ARGV[i + 5 + j] end
  end
  verdicts[n], kinds[stream] = enqueue(stream, kinds[stream], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], extra, now, at)
  i = i + 6 + count
end
return verdicts
