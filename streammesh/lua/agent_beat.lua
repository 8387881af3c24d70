#!lua flags=allow-oom
-- An agent's sign of life. Writes its whole card, so that a lost registry (restart, FLUSHALL) heals by itself.
-- KEYS 1 prefix of shard 0
-- ARGV 1 id  2 name  3 epoch  4 boot  5 lease ms  6 number of card pairs, then the pairs, then the capabilities
-- Returns {'ok' | 'back' (was gone, is registered again) | 'taken' (the id is another process's; nothing changed),
--          ms now, the capabilities that are paused}
-- Called by registry.Registry.beat
local id, boot = ARGV[1], ARGV[4]
local key = TAG .. 'agent:' .. id
local now = clock()
local known = redis.call('HGET', key, 'boot')
if known and known ~= boot then return {'taken', text(now)} end
local last = 6 + 2 * tonumber(ARGV[6])
local card = {}
for i = 7, last do card[#card + 1] = ARGV[i] end
redis.call('HSET', key, 'name', ARGV[2], 'epoch', ARGV[3], 'boot', boot, 'beat_at', iso(now), unpack(card))
redis.call('PEXPIRE', key, ARGV[5])
redis.call('ZADD', TAG .. 'agents', text(now), id)
local out = {known and 'ok' or 'back', text(now)}
for i = last + 1, #ARGV do
  if not known then
    redis.call('SADD', TAG .. 'cap:' .. ARGV[i] .. ':agents', id)
    redis.call('SADD', TAG .. 'caps', ARGV[i])
  end
  if redis.call('HGET', TAG .. 'cap:' .. ARGV[i], 'paused') then out[#out + 1] = ARGV[i] end
end
if not known then
  local epoch = tonumber(redis.call('HGET', TAG .. 'meta', 'epoch')) or 0
  if epoch < tonumber(ARGV[3]) then redis.call('HSET', TAG .. 'meta', 'epoch', ARGV[3]) end
  redis.call('XADD', TAG .. 'members', 'MAXLEN', '~', 10000, '*', 'type', 'joined', 'agent', id, 'reason', 'back', 'at', iso(now))
  event('agent.back', 'agent', id, 'at', iso(now))
end
return out
