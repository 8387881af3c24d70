#!lua flags=allow-oom
-- Takes agents whose lease has ended out of the registry, and says who is alive. Nobody is buried, and those whose lease has
-- ended count as alive, when the caller does not trust itself (limit 0), while nobody could sweep or beat (a gap between two
-- sweeps, and the grace after it: see task_sweep), and when more than half of all, three at least, went silent at once:
-- then it is rather the server, or the line, for as long as ARGV 2 says; also when the first of them are back before the others.
-- KEYS 1 prefix of shard 0
-- ARGV 1 limit of deaths in one call  2 ms since its last beat after which an agent is buried however many died with it
--      3 longest gap ms between two sweeps that is no stall
-- Returns {ids of those found dead now, ids of the live ones, ms now, how many of these are spared, ids of the dead whose
-- work need not be idle for a lease (agent_vanish)}
-- Called by registry.Registry.expire
local now, limit = clock(), tonumber(ARGV[1])
local gone, live, dead = {}, {}, {}
local scored = redis.call('ZRANGE', TAG .. 'agents', 0, -1, 'WITHSCORES')
for i = 1, #scored, 2 do
  if redis.call('EXISTS', TAG .. 'agent:' .. scored[i]) == 1 then
    live[#live + 1] = scored[i]
  else
    gone[#gone + 1] = {scored[i], tonumber(scored[i + 1])}
  end
end
local vanished = redis.call('ZRANGEBYSCORE', TAG .. 'vanished', text(now), '+inf')
if #gone == 0 then return {dead, live, text(now), 0, vanished} end
redis.call('ZREMRANGEBYSCORE', TAG .. 'vanished', '-inf', text(now))

local sweep = TAG .. 'sweep'
local known = redis.call('HMGET', sweep, 'tick', 'grace', 'held')
local spare = limit == 0 or (known[1] and now - tonumber(known[1]) > tonumber(ARGV[3])) or (tonumber(known[2]) or 0) > now
-- Those who went silent together do not all end their lease in the same moment: who has missed two beats counts as well.
local silent, all = #gone, #gone + #live
for i = 1, #scored, 2 do
  local lease = not spare and redis.call('HGET', TAG .. 'agent:' .. scored[i], 'lease')
  if lease and now - tonumber(scored[i + 1]) > 600 * (tonumber(lease) or 10) then silent = silent + 1 end
end
local mass = silent > 2 and 2 * silent > all
local held = tonumber(known[3]) or 0
local spared, at, caps = 0, nil, nil
for _, one in ipairs(gone) do
  local id, beat = one[1], one[2]
  if spare or ((mass or beat <= held) and now - beat < tonumber(ARGV[2])) then
    spared = spared + 1
    live[#live + 1] = id
  elseif #dead < limit then
    at = at or iso(now)
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
-- Once for each time that it happens, not at every sweep of every agent.
if mass and spared > 0 and limit > 0 and now - held > tonumber(ARGV[2]) then
  redis.call('HSET', sweep, 'held', text(now))
  event('agents.held', 'silent', text(silent), 'alive', text(all - silent), 'at', iso(now),
    'msg', 'more than half went silent at once: nobody is buried yet')
end
return {dead, live, text(now), spared, vanished}
