#!lua
-- Moves the clock of one shard of a mesh under test. The beats of agents and the sweep's memory move along, because no time
-- has passed for them.
-- KEYS 1 prefix of the shard
-- ARGV 1 by how many ms the clock is to be ahead of the server's, in all; what it is behind already it stays behind
-- Returns ms now, by the moved clock
-- Called by movable.MeshClock._move
local key = TAG .. 'clock'
local before = tonumber(redis.call('GET', key)) or 0
local by = math.max(0, tonumber(ARGV[1]) - before)
if redis.call('EXISTS', TAG .. 'meta') == 1 then redis.call('HSET', TAG .. 'meta', 'clock', 'movable') end
for _, beats in ipairs({TAG .. 'agents', TAG .. 'inboxes'}) do
  for _, agent in ipairs(redis.call('ZRANGE', beats, 0, -1)) do redis.call('ZINCRBY', beats, text(by), agent) end
end
for _, name in ipairs({'tick', 'grace', 'held'}) do
  local known = redis.call('HGET', TAG .. 'sweep', name)
  if known then redis.call('HSET', TAG .. 'sweep', name, text(tonumber(known) + by)) end
end
redis.call('SET', key, text(before + by))
return text(real_clock() + before + by)
