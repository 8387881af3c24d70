#!lua flags=allow-oom
-- Takes one bidder's answer: its last one before the close counts. When it is the last that was missing, the auction is decided.
-- With prelude_auction
-- KEYS 1 prefix of the shard
-- ARGV 1 id  2 bidder (agent id with its epoch)  3 'bid' | 'refusal'  4 eta  5 cost  6 quality  7 free slots ('' for not
--      said; numbers from 0 to 10^12)  8 reason of a refusal
-- Returns {word, ms until it should be looked at again or ''}: 'ok' | 'late' | 'foreign' (not asked) | 'invalid' | 'missing'
-- Called by auctions.Auctions.bid
local id, bidder, kind = ARGV[1], ARGV[2], ARGV[3]
local key = TAG .. 'auction:' .. id
local now = clock()
local a = fields(redis.call('HGETALL', key))
if not a.state then return {'missing', ''} end

local function refuse(word, what)
  audit(id, word, now, 'bidder', string.sub(bidder, 1, 128), 'what', what)
  return {word, ''}
end

if not string.find(' ' .. a.bidders .. ' ', ' ' .. bidder .. ' ', 1, true) or bidder == '' then
  return refuse('foreign', kind)
end
local parts = {'"kind":"' .. (kind == 'bid' and 'bid' or 'refusal') .. '"'}
for i, name in ipairs({'eta', 'cost', 'quality', 'free'}) do
  local said = ARGV[3 + i]
  if said ~= '' then
    local number = #said <= 32 and (string.match(said, '^%d+%.?%d*$') or string.match(said, '^%d+%.?%d*[eE][+-]?%d+$')) and tonumber(said)
    if not number or number ~= number or number > 1e12 then return refuse('invalid', name .. ' ' .. string.sub(said, 1, 40)) end
    parts[#parts + 1] = '"' .. name .. '":' .. said
  end
end
if kind ~= 'bid' and kind ~= 'refusal' then return refuse('invalid', 'kind') end
if #ARGV[8] > 500 then return refuse('invalid', 'reason') end
if kind == 'refusal' then parts[#parts + 1] = '"reason":' .. cjson.encode(ARGV[8]) end
local answered = '{' .. table.concat(parts, ',')
if a.state ~= 'open' then
  -- The same answer again, whose reply was lost, is no late one.
  local known = redis.call('HGET', key .. ':bids', bidder) or ''
  if string.sub(known, 1, #answered) == answered then return {'ok', ''} end
  return refuse('late', kind)
end
redis.call('HSET', key .. ':bids', bidder, answered .. ',"at":"' .. iso(now) .. '"}')
audit(id, kind, now, 'bidder', bidder)
return {'ok', tend_auction(id, {}, now)}
