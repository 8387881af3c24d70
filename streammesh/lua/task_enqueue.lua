#!lua
-- Enqueues a batch of tasks: record and entry (or due time) of each, all or none.
-- KEYS 1 prefix of the shard  2.. streams that the items name
-- ARGV 1 number of items, then for each: index into KEYS of its stream, capability, id, payload (JSON),
--        when ('' now | '+ms' from now | ms since 1970), number of pairs, then the pairs (name, value). Pairs go into the
--        record; `waiters priority to` stay there, `header.x` is `x` in the entry, `deadline` may be '+ms'
-- Returns one word for each: 'ok' | 'duplicate <state>' | 'conflict <state>' (known id, other payload; nothing changed;
--         the state is `unusable` where the key of the record holds another type)
-- Called by tasks.Tasks.enqueue
local now = clock()
local at = iso(now)
local kinds = {}
for s = 2, #KEYS do
  kinds[KEYS[s]] = usable(KEYS[s])
  if not kinds[KEYS[s]] then return redis.error_reply('WRONGTYPE ' .. KEYS[s] .. ' is not a stream') end
end
local verdicts = {}
local i = 2
for n = 1, tonumber(ARGV[1]) do
  local stream, capability, id, payload, when = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local pairs_n = tonumber(ARGV[i + 5])
  i = i + 6
  local key = TAG .. 'task:' .. id
  local known = redis.pcall('HMGET', key, 'state', 'payload')
  if known.err then
    verdicts[n] = 'conflict unusable'
  elseif known[1] then
    verdicts[n] = (known[2] == payload and 'duplicate ' or 'conflict ') .. known[1]
  else
    local entry = {'id', id, 'payload', payload, 'attempt', '1', 'at', at}
    local record = {'state', 'queued', 'capability', capability, 'payload', payload, 'enqueued_at', at}
    for j = i, i + 2 * pairs_n - 1, 2 do
      local name, value = ARGV[j], ARGV[j + 1]
      if name == 'deadline' and string.sub(value, 1, 1) == '+' then value = text(now + tonumber(string.sub(value, 2))) end
      record[#record + 1] = name
      record[#record + 1] = value
      if name == 'to' then name, value = 'capability', capability end
      if name ~= 'waiters' and name ~= 'priority' then
        entry[#entry + 1] = string.sub(name, 1, 7) == 'header.' and string.sub(name, 8) or name
        entry[#entry + 1] = value
      end
    end
    if when == '' then
      if kinds[stream] == 'none' then
        kinds[stream] = 'stream'
        make(stream, capability, string.sub(stream, #TAG + 1, #TAG + 6) == 'inbox:' and string.sub(stream, #TAG + 7), now)
      end
      record[#record + 1] = 'entry'
      record[#record + 1] = redis.call('XADD', stream, '*', unpack(entry))
      redis.call('HSET', key, unpack(record))
    else
      local due = string.sub(when, 1, 1) == '+' and now + tonumber(string.sub(when, 2)) or tonumber(when)
      record[2] = 'delayed'
      record[#record + 1] = 'due'
      record[#record + 1] = text(due)
      redis.call('SADD', TAG .. 'caps', capability)
      redis.call('HSET', key, unpack(record))
      redis.call('ZADD', TAG .. 'due', text(due), 'task:' .. id)
    end
    verdicts[n] = 'ok'
  end
  i = i + 2 * pairs_n
end
return verdicts
