#!lua flags=allow-oom
-- Takes an agent that goes by its own will out of the registry.
-- KEYS 1 prefix of shard 0
-- ARGV 1 id  2 boot  3.. capabilities
-- Returns 'ok' | 'stale' (the id is another process's)
-- Called by registry.Registry.leave
local key = TAG .. 'agent:' .. ARGV[1]
local known = redis.call('HGET', key, 'boot')
if known and known ~= ARGV[2] then return 'stale' end
redis.call('DEL', key)
local was = redis.call('ZREM', TAG .. 'agents', ARGV[1])
for i = 3, #ARGV do redis.call('SREM', TAG .. 'cap:' .. ARGV[i] .. ':agents', ARGV[1]) end
if was == 1 then
  local at = iso(clock())
  redis.call('XADD', TAG .. 'members', 'MAXLEN', '~', 10000, '*', 'type', 'left', 'agent', ARGV[1], 'reason', 'left',
    'capabilities', table.concat(ARGV, ' ', 3), 'at', at)
  event('agent.left', 'agent', ARGV[1], 'at', at)
end
return 'ok'
