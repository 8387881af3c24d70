-- Put after the prelude before every script that says `With prelude_auction`: the life of an auction.
-- open -> deciding -> awarded -> working -> done | failed | cancelled; from the first three also expired, cancelled, and, where
-- nobody takes the work, queued (in the capability's stream) or no_bids, all_refused.

-- One line of what happened in an auction.
local function audit(id, kind, now, ...)
  redis.call('XADD', TAG .. 'auction:' .. id .. ':audit', 'MAXLEN', '~', 1000, '*', 'type', kind, 'at', iso(now), ...)
end

-- Sees to it that somebody looks at the auction at `due`, or when its work would expire.
local function look_at(id, a, due)
  local at = math.min(due, tonumber(a.deadline) or due)
  redis.call('HSET', TAG .. 'auction:' .. id, 'due', text(due))
  redis.call('ZADD', TAG .. 'due', text(at), 'auction ' .. id)
end

-- Words of a text as a list.
local function words(said)
  local list = {}
  for word in string.gmatch(said or '', '%S+') do list[#list + 1] = word end
  return list
end

-- The number called `name` in a bid or in weights, or nothing.
local function number_in(json, name) return tonumber(string.match(json, '"' .. name .. '":([^,}"]+)') or '') end

-- A number for this bidder in this auction that nobody can foresee or prefer: the same for whoever computes it. Squaring
-- modulo a prime below 2^26 stays exact in a double, and ids that differ in one digit part at once.
local function lot(id, bidder)
  local h = 12345
  for _, said in ipairs({bidder, id, 'lot'}) do
    for i = 1, #said do h = (h * h + 257 * string.byte(said, i) + 54321) % 67108859 end
  end
  return h
end

-- Asks every bidder. The auction is open, with the bidders `list`.
local function call_for_bids(id, a, list, now)
  local closes = now + tonumber(a.window)
  local key = TAG .. 'auction:' .. id
  redis.call('HSET', key, 'state', 'open', 'bidders', table.concat(list, ' '), 'closes', text(closes), 'round', a.round)
  a.state, a.bidders, a.closes = 'open', table.concat(list, ' '), text(closes)
  look_at(id, a, closes)
  local payload = '{"auction":"' .. id .. '","round":' .. a.round .. ',"capability":"' .. a.capability .. '","payload":' .. a.payload ..
    ',"closes":' .. text(closes) .. ',"deadline":' .. (a.deadline or 'null') .. '}'
  for _, bidder in ipairs(list) do
    post(bidder, 'auction.call', id .. ':call:' .. a.round, payload, now, 'correlation', a.correlation, 'causation', id, 'traceparent', a.traceparent or trace_of(a.correlation))
  end
  audit(id, 'open', now, 'round', a.round, 'bidders', a.bidders)
end

-- Nobody takes the work by bidding: to the capability's queue with it, or the typed end. Work that had begun is never dropped.
local function conclude(id, a, reason, now)
  local key = TAG .. 'auction:' .. id
  local work = id .. ':work'
  local r = fields(redis.call('HGETALL', TAG .. 'task:' .. work))
  if a.fallback ~= 'queue' and not r.state then
    return end_auction(id, reason == 'all_refused' and reason or 'no_bids', 'nobody took it: ' .. reason, now, reason)
  end
  reject(id, '', reason, now)
  redis.call('HSET', key, 'state', 'queued', 'reason', reason, 'winner', '')
  redis.call('ZREM', TAG .. 'due', 'auction ' .. id)
  audit(id, 'queued', now, 'reason', reason)
  event('auction.queued', 'auction', id, 'capability', a.capability, 'msg', reason, 'correlation', a.correlation, 'at', iso(now))
  if r.state == 'delayed' then
    redis.call('ZREM', TAG .. 'due', 'task:' .. work)
    redis.call('HDEL', TAG .. 'task:' .. work, 'due')
    put(work, r, now)
  elseif not r.state then
    local stream = TAG .. 'tasks:' .. a.capability
    local kind = usable(stream)
    if not kind then return end_auction(id, 'failed', 'the key of its stream holds another type', now, reason) end
    local extra = {'waiters', 'auction', 'correlation', a.correlation, 'causation', id,
      'traceparent', a.traceparent or trace_of(a.correlation)}
    if a.deadline then extra[#extra + 1], extra[#extra + 2] = 'deadline', a.deadline end
    enqueue(stream, kind, a.capability, work, a.payload, '', extra, now, iso(now))
  end
end

-- The next best gets it; behind the last one the bidders are asked once more, those that were silent or died excepted.
local function award_next(id, a, now)
  local key = TAG .. 'auction:' .. id
  local ranking, next = words(a.ranking), tonumber(a.next) or 0
  local out = ' ' .. (a.out or '') .. ' '
  repeat next = next + 1 until not ranking[next] or not string.find(out, ' ' .. ranking[next] .. ' ', 1, true)
  local winner = ranking[next]
  if winner then
    local award = redis.call('HINCRBY', key, 'award', 1)
    redis.call('HSET', key, 'state', 'awarded', 'winner', winner, 'next', next)
    look_at(id, a, now + tonumber(a.confirm))
    post(winner, 'auction.award', id .. ':award:' .. award, '{"auction":"' .. id .. '","award":' .. award .. ',"confirm":' .. a.confirm ..
      '}', now, 'correlation', a.correlation, 'causation', id, 'traceparent', a.traceparent or trace_of(a.correlation))
    audit(id, 'awarded', now, 'bidder', winner, 'award', award)
    event('auction.awarded', 'auction', id, 'capability', a.capability, 'agent', winner, 'correlation', a.correlation, 'causation', id,
      'at', iso(now))
    return
  end
  local left = {}
  for _, bidder in ipairs(words(a.bidders)) do
    if not string.find(out, ' ' .. bidder .. ' ', 1, true) then left[#left + 1] = bidder end
  end
  if a.round ~= '1' or #left == 0 then return conclude(id, a, 'nobody_confirmed', now) end
  redis.call('DEL', key .. ':bids')
  redis.call('HDEL', key, 'ranking', 'next', 'winner', 'scores')
  a.round = '2'
  call_for_bids(id, a, left, now)
end

-- Ranks `list` ({bidder, score, free} each), best first: score, then free slots, then the lot; and awards.
local function award(id, a, list, now)
  local floor = tonumber(a.min_score)
  local kept, scores = {}, {}
  for _, one in ipairs(list) do
    one.lot = lot(id, one.bidder)
    scores[#scores + 1] = '"' .. one.bidder .. '":' .. string.format('%.6f', one.score)
    if not floor or one.score >= floor then kept[#kept + 1] = one end
  end
  table.sort(kept, function(x, y)
    if x.score ~= y.score then return x.score > y.score end
    if x.free ~= y.free then return x.free > y.free end
    if x.lot ~= y.lot then return x.lot < y.lot end
    return x.bidder < y.bidder
  end)
  local names = {}
  for i, one in ipairs(kept) do names[i] = one.bidder end
  a.ranking, a.next = table.concat(names, ' '), nil
  redis.call('HSET', TAG .. 'auction:' .. id, 'ranking', a.ranking, 'scores', '{' .. table.concat(scores, ',') .. '}')
  if #kept == 0 then return conclude(id, a, 'no_acceptable_bid', now) end
  award_next(id, a, now)
end

-- The bids proper as a list of {bidder, json, free}, and how many answered in another way that is no silence: refused.
local function bids_of(id)
  local flat = redis.call('HGETALL', TAG .. 'auction:' .. id .. ':bids')
  local list, refused, dead = {}, 0, 0
  for i = 1, #flat, 2 do
    local kind = string.match(flat[i + 1], '^{"kind":"(%a+)"')
    if kind == 'bid' then
      list[#list + 1] = {bidder = flat[i], json = flat[i + 1], free = number_in(flat[i + 1], 'free') or 0}
    elseif kind == 'refusal' then
      refused = refused + 1
    else
      dead = dead + 1
    end
  end
  return list, refused, dead
end

local TERMS = {eta = -1, cost = -1, quality = 1, free = 1}

-- The default score: weighted terms, each brought to 0 (worst, or not said) .. 1 (best) among the bids, and 0 where all are
-- equal; less the weight of `history` times the share of works that went wrong.
local function score(a, list, now)
  for _, one in ipairs(list) do one.score = 0 end
  for term, sign in pairs(TERMS) do
    local weight = number_in(a.weights, term)
    local low, high
    for _, one in ipairs(list) do
      local x = number_in(one.json, term)
      if x then
        low = math.min(low or x, x)
        high = math.max(high or x, x)
      end
    end
    if weight and low and high > low then
      for _, one in ipairs(list) do
        local x = number_in(one.json, term)
        if x then one.score = one.score + weight * (sign > 0 and x - low or high - x) / (high - low) end
      end
    end
  end
  local weight = number_in(a.weights, 'history')
  for _, one in ipairs(list) do
    if not weight then break end
    local good, all = history(a.capability, (string.gsub(one.bidder, '%.%d+$', '')), now)
    -- Laplace's rule with one success given: who never failed loses nothing, and a winner does not lock out a newcomer.
    one.score = one.score - weight * (1 - (good + 1) / (all + 1))
  end
end

-- Bidding is over. Where the initiator wants to score, it is asked, and gets the time of a confirmation to answer.
local function decide(id, a, now)
  local list, refused, dead = bids_of(id)
  if #list == 0 then
    local count = #words(a.bidders)
    return conclude(id, a, refused > 0 and refused + dead == count and 'all_refused' or 'no_bids', now)
  end
  if a.scorer and a.state == 'open' then
    redis.call('HSET', TAG .. 'auction:' .. id, 'state', 'deciding')
    look_at(id, a, now + tonumber(a.confirm))
    audit(id, 'deciding', now, 'bids', #list)
    local stream = TAG .. 'replies:' .. a.scorer
    redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', 'auction ' .. id, 'state', 'nudge deciding')
    redis.call('PEXPIRE', stream, 600000)
    return
  end
  audit(id, 'deciding', now, 'bids', #list)
  score(a, list, now)
  award(id, a, list, now)
end

-- Opens the auction `id` on `terms` for `list` of agents. Returns 'ok' | 'duplicate <state>' | 'conflict <state>'.
local function open_auction(id, terms, list, now)
  local key = TAG .. 'auction:' .. id
  local known = redis.call('HMGET', key, 'state', 'capability', 'payload')
  if known[1] then
    return (known[2] == terms.capability and known[3] == terms.payload and 'duplicate ' or 'conflict ') .. known[1]
  end
  local work = redis.pcall('HGET', TAG .. 'task:' .. id .. ':work', 'state')
  if work then return 'conflict task' end
  if terms.deadline then terms.deadline = text(now + tonumber(terms.deadline)) end
  terms.correlation = terms.correlation or terms.run or id
  terms.round = '1'
  local flat = {'state', 'open', 'opened_at', iso(now)}
  for name, value in pairs(terms) do flat[#flat + 1], flat[#flat + 2] = name, value end
  redis.call('HSET', key, unpack(flat))
  redis.call('ZADD', TAG .. 'auctions', text(now), id)
  event('auction.opened', 'auction', id, 'capability', terms.capability, 'correlation', terms.correlation, 'causation',
    terms.causation or terms.run or '', 'at', iso(now))
  terms.state = 'open'
  call_for_bids(id, terms, list, now)
  if #list == 0 then decide(id, terms, now) end
  return 'ok'
end

-- Takes the auction one step on if its time has come, or if those in `dead` were what it waited for.
-- Returns ms until it should be looked at again, or '' when its work is on its way or over.
local function tend_auction(id, dead, now)
  local key = TAG .. 'auction:' .. id
  local a = fields(redis.call('HGETALL', key))
  if a.state ~= 'open' and a.state ~= 'deciding' and a.state ~= 'awarded' then
    redis.call('ZREM', TAG .. 'due', 'auction ' .. id)
    if not a.state or AUCTION_ENDS[a.state] then redis.call('ZREM', TAG .. 'auctions', id) end
    return ''
  end
  local due = tonumber(a.due)
  local late = tonumber(a.deadline) and now >= tonumber(a.deadline)
  for _, bidder in ipairs(words(a.bidders)) do
    if dead[bidder] and not string.find(' ' .. (a.out or '') .. ' ', ' ' .. bidder .. ' ', 1, true) then
      a.out = (a.out and a.out .. ' ' or '') .. bidder
      redis.call('HSET', key, 'out', a.out)
      redis.call('HSET', key .. ':bids', bidder, '{"kind":"dead"}')
      audit(id, 'dead', now, 'bidder', bidder)
    end
  end
  if late then
    end_auction(id, 'expired', 'its deadline passed before anybody began', now, 'deadline')
  elseif a.state == 'open' then
    if now >= due or redis.call('HLEN', key .. ':bids') >= #words(a.bidders) then decide(id, a, now) end
  elseif a.state == 'deciding' then
    if now >= due then decide(id, a, now) end
  elseif dead[a.winner] then
    award_next(id, a, now)
  elseif now >= due then
    audit(id, 'silent', now, 'bidder', a.winner)
    remember(a.capability, a.winner, false, now)
    a.out = (a.out and a.out .. ' ' or '') .. a.winner
    redis.call('HSET', key, 'out', a.out)
    award_next(id, a, now)
  end
  local next = redis.call('HMGET', key, 'state', 'due')
  if next[1] ~= 'open' and next[1] ~= 'deciding' and next[1] ~= 'awarded' then return '' end
  look_at(id, a, tonumber(next[2]))
  return text(math.max(0, math.min(tonumber(next[2]), tonumber(a.deadline) or tonumber(next[2])) - now))
end

-- The work of an auction lost its agent: it is put off, and offered to the next best. False when it is not the auction's to move.
local function move_work(work, r, agent, now)
  local id = string.match(work, '^(.+):work$')
  local a = id and fields(redis.call('HGETALL', TAG .. 'auction:' .. id)) or {}
  if a.state ~= 'working' or a.winner ~= agent then return false end
  local key = TAG .. 'task:' .. work
  local deaths = r.state == 'running' and redis.call('HINCRBY', key, 'deaths', 1) or 0
  if deaths >= 3 then
    bury(work, r, 'poison', 'its agent died ' .. deaths .. ' times while running it', now)
    return true
  end
  remember(a.capability, agent, false, now)
  a.out = (a.out and a.out .. ' ' or '') .. agent
  redis.call('HSET', TAG .. 'auction:' .. id, 'out', a.out)
  -- Were nobody to drive the auction, the work goes to the capability's queue by itself.
  local backstop = now + tonumber(a.window) + tonumber(a.confirm) * (#words(a.bidders) + 2) + 10000
  redis.call('HDEL', key, 'to')
  redis.call('HSET', key, 'state', 'delayed', 'due', text(backstop))
  redis.call('ZADD', TAG .. 'due', text(backstop), 'task:' .. work)
  audit(id, 'moved', now, 'bidder', agent)
  award_next(id, a, now)
  return true
end
