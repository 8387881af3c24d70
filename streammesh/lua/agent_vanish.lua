#!lua flags=allow-oom
-- Takes agents of which no connection is left out of the registry before their lease has ended, and lets everybody know.
-- KEYS 1 prefix of shard 0
-- ARGV for each: its id, the ms of its last beat when it was missed. One that has beaten since is left alone.
-- Returns the ids of those buried now
-- With prelude_member
-- Called by registry.Registry.vanish
local now = clock()
local at = iso(now)
local dead = {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local card = TAG .. 'agent:' .. id
  local left = redis.call('PTTL', card)
  local beat = redis.call('ZSCORE', TAG .. 'agents', id)
  if left >= 0 and beat and tonumber(beat) == tonumber(ARGV[i + 1]) then
    take_out(id, 'vanished', now)
    event('agent.died', 'agent', id, 'msg', 'no connection is left of it', 'at', at)
    dead[#dead + 1] = id
  end
end
return dead
