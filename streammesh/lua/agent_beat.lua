#!lua flags=allow-oom
-- An agent's sign of life. Writes its whole card, so that a lost registry (restart, FLUSHALL) heals by itself. What the card
-- says anew of state, capabilities and types of messages is told in the members feed.
-- KEYS 1 prefix of shard 0
-- ARGV 1 id  2 name  3 epoch  4 boot  5 lease ms  6 number of card pairs, then the pairs, then the capabilities
-- Returns {'ok' | 'back' (was gone, is registered again) | 'taken' (the id is another process's; nothing changed)
--          | 'evicted' (an operator took it out; nothing changed),
--          ms now, the capabilities that are paused}
-- With prelude_member
-- Called by registry.Registry.beat
local id, boot = ARGV[1], ARGV[4]
local key = TAG .. 'agent:' .. id
local now = clock()
local was = redis.call('HMGET', key, 'boot', 'state', 'capabilities', 'types', 'skills')
local known = was[1]
if known and known ~= boot then return {'taken', text(now)} end
if not known and redis.call('ZSCORE', TAG .. 'vanished', 'evicted ' .. id) then return {'evicted', text(now)} end
local said = {state = was[2], capabilities = was[3], types = was[4], skills = was[5]}
local last = 6 + 2 * tonumber(ARGV[6])
local card, news = {'name', ARGV[2], 'epoch', ARGV[3]}, {}
for i = 7, last, 2 do
  card[#card + 1] = ARGV[i]
  card[#card + 1] = ARGV[i + 1]
  if said[ARGV[i]] ~= nil and said[ARGV[i]] ~= ARGV[i + 1] then news[ARGV[i]] = ARGV[i + 1] end
end
redis.call('HSET', key, 'boot', boot, 'beat_at', iso(now), unpack(card))
redis.call('PEXPIRE', key, ARGV[5])
redis.call('ZADD', TAG .. 'agents', text(now), id)
local out = {known and 'ok' or 'back', text(now)}
for i = last + 1, #ARGV do
  if not known or news.capabilities then
    redis.call('SADD', TAG .. 'cap:' .. ARGV[i] .. ':agents', id)
    redis.call('SADD', TAG .. 'caps', ARGV[i])
  end
  if redis.call('HGET', TAG .. 'cap:' .. ARGV[i], 'paused') then out[#out + 1] = ARGV[i] end
end
if known and news.capabilities then
  local now_offered = ' ' .. news.capabilities .. ' '
  for capability in string.gmatch(said.capabilities or '', '%S+') do
    if not string.find(now_offered, ' ' .. capability .. ' ', 1, true) then
      redis.call('SREM', TAG .. 'cap:' .. capability .. ':agents', id)
    end
  end
end
if not known then
  redis.call('ZREM', TAG .. 'vanished', id)
  local epoch = tonumber(redis.call('HGET', TAG .. 'meta', 'epoch')) or 0
  if epoch < tonumber(ARGV[3]) then redis.call('HSET', TAG .. 'meta', 'epoch', ARGV[3]) end
  member('joined', id, card, 'reason', 'back', 'at', iso(now))
  event('agent.back', 'agent', id, 'at', iso(now))
  if redis.call('ZCARD', TAG .. 'agents') == 1 then
    -- The first in an empty registry: it may have been lost, and whoever lives need not wait for his turn to come back.
    redis.call('XADD', TAG .. 'control', 'MAXLEN', '~', 1000, '*', 'type', 'beat', 'by', id, 'at', iso(now))
  end
elseif next(news) then
  member('changed', id, card, 'at', iso(now))
end
return out
