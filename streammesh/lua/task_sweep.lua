#!lua flags=allow-oom
-- Looks for what dead agents left in one shard, and forgets their consumers once nothing is pending with them.
-- KEYS 1 prefix of the shard  2.. streams that the sweeping agent serves, then those that it would serve if they existed
-- ARGV 1 lease ms  2 longest gap ms between two sweeps that is no stall  3 how many streams it serves
--      4 ms at which these were found alive  5.. ids of the live agents
-- Returns {two for each orphaned consumer: index into KEYS, consumer; agents whose inbox outlived them; ms until something
-- is due ('' when nothing is); indexes into KEYS of the missing streams that exist by now}
-- A gap means that nobody could sweep: the server stood still, or was away. Then live agents had no chance to beat
-- either, so nothing is taken from anybody for one lease. Nor is it by a caller that stood still itself between asking who
-- is alive and coming here: whoever has joined meanwhile would look dead to it.
-- Called by sweep.Sweep.once
local lease, now = tonumber(ARGV[1]), clock()
local sweep = TAG .. 'sweep'
local known = redis.call('HMGET', sweep, 'tick', 'grace')
local grace = tonumber(known[2]) or 0
if known[1] and now - tonumber(known[1]) > tonumber(ARGV[2]) then
  grace = math.max(grace, now + lease)
  redis.call('HSET', sweep, 'grace', text(grace))
end
redis.call('HSET', sweep, 'tick', text(now))

local served = 1 + tonumber(ARGV[3])
local appeared = {}
for s = served + 1, #KEYS do
  if redis.call('EXISTS', KEYS[s]) == 1 then appeared[#appeared + 1] = s end
end
local head = redis.pcall('ZRANGE', TAG .. 'due', 0, 0, 'WITHSCORES')
local due = head[2] and text(math.max(0, tonumber(head[2]) - now)) or ''
if grace > now or now - tonumber(ARGV[4]) > tonumber(ARGV[2]) then return {{}, {}, due, appeared} end

local live = {}
for i = 5, #ARGV do live[ARGV[i]] = true end
local orphans, inboxes = {}, {}
for s = 2, served do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[s], 'agents')
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local c = fields(flat)
    if not live[c.name] then
      if tonumber(c.pending) > 0 then
        orphans[#orphans + 1] = s
        orphans[#orphans + 1] = c.name
      elseif tonumber(c.idle) > 10 * lease then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[s], 'agents', c.name)
      end
    end
  end
end
for _, agent in ipairs(redis.call('ZRANGEBYSCORE', TAG .. 'inboxes', '-inf', text(now - lease))) do
  if not live[agent] then inboxes[#inboxes + 1] = agent end
end
return {orphans, inboxes, due, appeared}
