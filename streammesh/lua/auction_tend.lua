#!lua flags=allow-oom
-- Takes auctions a step on where their time has come, or where the dead are what they waited for.
-- With prelude_auction
-- KEYS 1 prefix of the shard
-- ARGV 1 id, '' for every unfinished one  2.. agents that died
-- Returns ms until the (next) one should be looked at again, '' when none has to be
-- Called by auctions.Auctions.tend
local now = clock()
local dead = {}
for i = 2, #ARGV do dead[ARGV[i]] = true end
if ARGV[1] ~= '' then return tend_auction(ARGV[1], dead, now) end
local soonest = ''
for _, id in ipairs(redis.call('ZRANGE', TAG .. 'auctions', 0, 999)) do
  local wait = tend_auction(id, dead, now)
  if wait ~= '' and (soonest == '' or tonumber(wait) < tonumber(soonest)) then soonest = wait end
end
return soonest
