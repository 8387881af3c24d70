#!lua flags=allow-oom
-- Takes agents whose lease has ended out of the registry, and says who is alive.
-- KEYS 1 prefix of shard 0
-- ARGV 1 limit of deaths in one call
-- Returns {ids of those found dead now, ids of the live ones}
-- Called by registry.Registry.expire
local dead, live = {}, {}
local at
local caps
for _, id in ipairs(redis.call('ZRANGE', TAG .. 'agents', 0, -1)) do
  if redis.call('EXISTS', TAG .. 'agent:' .. id) == 1 then
    live[#live + 1] = id
  elseif #dead < tonumber(ARGV[1]) then
    at = at or iso(clock())
    caps = caps or redis.call('SMEMBERS', TAG .. 'caps')
    redis.call('ZREM', TAG .. 'agents', id)
    local had = {}
    for _, capability in ipairs(caps) do
      if redis.call('SREM', TAG .. 'cap:' .. capability .. ':agents', id) == 1 then had[#had + 1] = capability end
    end
    redis.call('XADD', TAG .. 'members', 'MAXLEN', '~', 10000, '*', 'type', 'died', 'agent', id, 'reason', 'expired',
      'capabilities', table.concat(had, ' '), 'at', at)
    event('agent.died', 'agent', id, 'at', at)
    dead[#dead + 1] = id
  end
end
return {dead, live}
