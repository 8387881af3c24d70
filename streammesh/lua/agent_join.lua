#!lua flags=allow-oom
-- Registers a process under a new epoch, which makes its id unique: <name>.<epoch>.
-- KEYS 1 prefix of shard 0
-- ARGV 1 name  2 boot (a word that only this process knows)  3 lease ms  4 number of card pairs, then the pairs,
--      then the capabilities
-- Returns {id, ms now}
-- With prelude_member
-- Called by registry.Registry.join
local now = clock()
local epoch = redis.call('HINCRBY', TAG .. 'meta', 'epoch', 1)
local id = ARGV[1] .. '.' .. epoch
local card = {'name', ARGV[1], 'epoch', epoch, 'boot', ARGV[2], 'joined_at', iso(now)}
local last = 4 + 2 * tonumber(ARGV[4])
for i = 5, last do card[#card + 1] = ARGV[i] end
redis.call('HSET', TAG .. 'agent:' .. id, unpack(card))
redis.call('PEXPIRE', TAG .. 'agent:' .. id, ARGV[3])
redis.call('ZADD', TAG .. 'agents', text(now), id)
for i = last + 1, #ARGV do
  redis.call('SADD', TAG .. 'cap:' .. ARGV[i] .. ':agents', id)
  redis.call('SADD', TAG .. 'caps', ARGV[i])
end
member('joined', id, card, 'reason', 'new', 'at', iso(now))
event('agent.joined', 'agent', id, 'at', iso(now))
return {id, text(now)}
