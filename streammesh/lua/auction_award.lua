#!lua flags=allow-oom
-- The initiator's own scores for the bids; the best gets the award.
-- With prelude_auction
-- KEYS 1 prefix of the shard
-- ARGV 1 id, then bidder and score of each
-- Returns 'ok' | 'late' (decided without it, or over) | 'missing' | 'invalid' (a score that is no number)
-- Called by auctions.Auctions._score
local id = ARGV[1]
local now = clock()
local a = fields(redis.call('HGETALL', TAG .. 'auction:' .. id))
if not a.state then return 'missing' end
if a.state ~= 'deciding' then return 'late' end
local scores = {}
for i = 2, #ARGV, 2 do
  local number = string.find(ARGV[i + 1], '^-?%d') and tonumber(ARGV[i + 1])
  if not number or number ~= number or math.abs(number) > 1e12 then return 'invalid' end
  scores[ARGV[i]] = number
end
local list, scored = bids_of(id), {}
for _, one in ipairs(list) do
  one.score = scores[one.bidder]
  if one.score then scored[#scored + 1] = one end
end
award(id, a, scored, now)
return 'ok'
