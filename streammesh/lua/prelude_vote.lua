-- Put after the prelude before every script that says `With prelude_vote`: the life of a vote, and of a collection of answers,
-- which is a vote without a tally (method `collect`).
-- A ballot is kept in words: numbers of options in the voter's order, 'abstain', 'veto <option>', 'invalid <why>', 'dead',
-- and in a collection 'answer <json>'. Weights are whole numbers, so that nothing depends on rounding.
local VOTE_KEPT = 86400000

local function vote_key(id) return TAG .. 'vote:' .. id end

local function votes_in(v, agent)
  for one in string.gmatch(v.electorate, '(%S+) %d+') do if one == agent then return true end end
  return false
end

local function numbers(words)
  local list = {}
  for word in string.gmatch(words or '', '%d+') do list[#list + 1] = tonumber(word) end
  return list
end

-- Puts the ballots in order: heads and weights that are cast or outstanding, who is silent, dead or invalid.
local function count(v, ballots)
  local t = {heads = 0, weight = 0, cast = 0, cast_weight = 0, out = 0, out_weight = 0, lists = {}, vetoed = {}, vetoes = 0,
    silent = {}, dead = {}, invalid = {}, answers = {}}
  for agent, word in string.gmatch(v.electorate, '(%S+) (%d+)') do
    local weight, ballot = tonumber(word), ballots[agent]
    t.heads = t.heads + 1
    t.weight = t.weight + weight
    if not ballot then
      t.out = t.out + 1
      t.out_weight = t.out_weight + weight
      t.silent[#t.silent + 1] = cjson.encode(agent)
    elseif ballot == 'dead' then
      t.dead[#t.dead + 1] = cjson.encode(agent)
    elseif string.sub(ballot, 1, 8) == 'invalid ' then
      t.invalid[#t.invalid + 1] = '[' .. cjson.encode(agent) .. ',' .. cjson.encode(string.sub(ballot, 9)) .. ']'
    else
      t.cast = t.cast + 1
      if string.sub(ballot, 1, 7) == 'answer ' then
        t.answers[#t.answers + 1] = '[' .. cjson.encode(agent) .. ',' .. string.sub(ballot, 8) .. ']'
      elseif ballot ~= 'abstain' then
        local veto = string.match(ballot, '^veto (%d+)$')
        t.cast_weight = t.cast_weight + weight
        if veto then
          t.vetoed[tonumber(veto)] = true
          t.vetoes = t.vetoes + 1
        else
          t.lists[#t.lists + 1] = {weight, numbers(ballot)}
        end
      end
    end
  end
  return t
end

-- Support of each option that is left, and the sum of it; the first one that is left counts, with `all` each.
local function support(t, left, all)
  local s, total = {}, 0
  for k in pairs(left) do s[k] = 0 end
  for _, one in ipairs(t.lists) do
    for _, k in ipairs(one[2]) do
      if left[k] then
        s[k] = s[k] + one[1]
        total = total + one[1]
        if not all then break end
      end
    end
  end
  return s, total
end

-- Who leads: best and second best support, the leaders in the order of the options.
local function leading(s, options)
  local best, second, leaders = 0, 0, {}
  for k = 1, options do
    local x = s[k]
    if x and x > best then best, second, leaders = x, best, {k}
    elseif x and x > 0 and x == best then second, leaders[#leaders + 1] = x, k
    elseif x and x > second then second = x end
  end
  return best, second, leaders
end

-- Adds up. A ranked vote drops the last option, of equal ones that whose lot comes last, until one has more than half or two
-- are left.
local function add_up(v, t)
  local options, left, places = tonumber(v.options), {}, 0
  for _, k in ipairs(numbers(v.eligible)) do
    if not t.vetoed[k] then
      left[k] = true
      places = places + 1
    end
  end
  local a = {rounds = 1, left = left}
  while true do
    a.s, a.total = support(t, left, v.method == 'approval')
    a.best, a.second, a.leaders = leading(a.s, options)
    if v.method ~= 'ranked' or places <= 2 or a.best * 2 > a.total then break end
    local last
    for _, k in ipairs(numbers(v.lots)) do
      if left[k] and (not last or a.s[k] <= a.s[last]) then last = k end
    end
    left[last] = nil
    places = places - 1
    a.rounds = a.rounds + 1
  end
  a.basis = v.basis == 'electorate' and t.weight or v.method == 'ranked' and a.total or t.cast_weight
  return a
end

-- Whether so much support reaches the threshold of `basis`; second: whether it is exactly what a strict one asks to pass.
local function reaches(v, x, basis)
  local have, need = x * tonumber(v.of), tonumber(v.need) * basis
  if v.strict == '1' then return have > need, have == need end
  return have >= need, false
end

local function break_tie(v, t, a, ballots)
  local place = {}
  for _, k in ipairs(a.leaders) do place[k] = true end
  if v.tie == 'priority' then return a.leaders[1] end
  if v.tie == 'status_quo' then
    local k = tonumber(v.status_quo)
    return not t.vetoed[k] and k
  end
  if v.tie == 'hash' then
    for _, k in ipairs(numbers(v.lots)) do if place[k] then return k end end
  end
  if v.tie == 'chair' then
    local said = ballots[v.chair] or ''
    if not string.match(said, '^[%d ]+$') then return nil end
    local found
    for _, k in ipairs(numbers(said)) do
      if place[k] then
        if v.method ~= 'approval' then return k end
        if found then return nil end
        found = k
      end
    end
    return found
  end
end

-- What a vote has come to: outcome, winner, reason; nothing while it is open. `final`: nobody is waited for any longer.
local function verdict(v, t, a, ballots, final)
  local quorum = tonumber(v.quorum)
  if v.cancel then return 'cancelled', nil, 'cancelled by ' .. v.cancel end
  if t.cast + t.out < quorum then return 'no_quorum', nil, 'unreachable' end
  final = final or t.out == 0
  if t.cast < quorum then
    if final then return 'no_quorum', nil, 'deadline' end
    return
  end
  if final then
    local how = t.out == 0 and 'all' or 'deadline'
    if a.best == 0 then return 'no_majority', nil, t.vetoes > 0 and 'vetoed' or 'no support' end
    local enough, half = reaches(v, a.best, a.basis)
    if #a.leaders == 1 and enough then return 'decided', a.leaders[1], how end
    if #a.leaders == 1 or not (enough or half) then return 'no_majority', nil, 'threshold' end
    if v.tie == 'runoff' and v.round == '1' then return 'runoff' end
    local winner = break_tie(v, t, a, ballots)
    if winner then return 'decided', winner, 'tie ' .. v.tie end
    return 'tie', nil, how
  end
  -- A ballot that may still be changed decides nothing before its time.
  if v.change == 'last' then return end
  local most = v.basis == 'electorate' and t.weight or t.cast_weight + t.out_weight
  if #a.leaders == 1 and v.veto ~= '1' then
    local sure
    if v.method == 'ranked' then
      sure = a.rounds == 1 and a.best * 2 > t.cast_weight + t.out_weight
    else
      sure = a.best - a.second > t.out_weight
    end
    if sure and reaches(v, a.best, most) then return 'decided', a.leaders[1], 'early' end
  end
  if v.method ~= 'ranked' then
    local enough, half = reaches(v, a.best + t.out_weight, most)
    if not enough and not half then return 'no_majority', nil, 'impossible' end
  end
end

-- The same of a collection of answers; second: ms at which it is to be looked at again.
local function gathered(v, t, final, now)
  local least, stall, ends = tonumber(v.quorum), tonumber(v.stall), tonumber(v.deadline)
  if v.cancel then return 'cancelled', 'cancelled by ' .. v.cancel end
  if t.cast + t.out < least then return 'no_quorum', 'unreachable' end
  if t.cast >= tonumber(v.expected) then return 'decided', t.out == 0 and 'all' or 'expected' end
  if t.out == 0 then return 'decided', 'all' end
  if final then return t.cast >= least and 'decided' or 'no_quorum', 'deadline' end
  if stall and t.cast >= least then
    local at = tonumber(v.last or v.began) + stall
    if now >= at then return 'decided', 'stall' end
    ends = math.min(ends, at)
  end
  return nil, ends
end

local function audit(id, kind, now, ...)
  redis.call('XADD', vote_key(id) .. ':audit', '*', 'type', kind, 'at', iso(now), ...)
end

local function vote_event(kind, id, v, now, ...)
  event(kind, 'vote', id, 'correlation', v.correlation or id, 'causation', v.causation or '', 'at', iso(now), ...)
end

-- The options of this round that `agent` may choose: all but those that `barred` ('agent option agent option …') names for it.
local function open_to(v, agent)
  local list, out = {}, {}
  for one, n in string.gmatch(v.barred or '', '(%S+) (%d+)') do if one == agent then out[tonumber(n)] = true end end
  for _, k in ipairs(numbers(v.eligible)) do if not out[k] then list[#list + 1] = k end end
  return list
end

-- Asks every voter who has not been heard, and is not known to be dead.
local function ask(id, v, ballots, now)
  for agent in string.gmatch(v.electorate, '(%S+) %d+') do
    if not ballots[agent] then
      post(agent, v.method == 'collect' and 'collect.ask' or 'vote.open', 'vote.' .. id .. '.' .. v.round, v.paper, now, 'vote', id,
        'topic', v.topic, 'round', v.round, 'eligible', table.concat(open_to(v, agent), ' '), 'deadline', v.deadline, 'correlation', v.correlation or id, 'causation',
        v.causation or '', 'source', v.source or '', 'traceparent', v.traceparent or trace_of(v.correlation or id))
    end
  end
end

-- Writes the outcome, once, and tells the run and the clients that wait for it.
local function close_vote(id, v, t, a, word, winner, reason, by, now)
  local key, at = vote_key(id), iso(now)
  local lists = '"electorate":' .. text(t.weight) .. ',"voters":' .. text(t.heads) .. ',"ballots":' .. text(t.cast) ..
    ',"silent":[' .. table.concat(t.silent, ',') .. '],"dead":[' .. table.concat(t.dead, ',') .. '],"invalid":[' ..
    table.concat(t.invalid, ',') .. '],"closed_by":' .. cjson.encode(by) .. ',"reason":' .. cjson.encode(reason) ..
    ',"round":' .. v.round .. ',"at":"' .. at .. '"}'
  local result = '{"id":"' .. id .. '","outcome":"' .. word .. '",'
  if v.method == 'collect' then
    result = result .. '"answers":[' .. table.concat(t.answers, ',') .. '],' .. lists
  else
    local tally = {}
    for k = 1, tonumber(v.options) do tally[k] = a.s[k] and text(a.s[k]) or 'null' end
    local mine = winner and (a.s[winner] or 0) or a.best
    local others = 0
    for k, x in pairs(a.s) do
      if k ~= (winner or a.leaders[1]) then others = math.max(others, x) end
    end
    result = result .. '"winner":' .. (winner and cjson.encode(v['option.' .. winner]) or 'null') .. ',"support":' .. text(mine) ..
      ',"basis":' .. text(a.basis) .. ',"cast":' .. text(t.cast_weight) .. ',"margin":' .. text(mine - others) .. ',"tally":[' ..
      table.concat(tally, ',') .. '],' .. lists
  end
  redis.call('HSET', key, 'state', word, 'result', result, 'closed_at', at, 'closed_by', by)
  redis.call('ZREM', TAG .. 'due', 'vote ' .. id)
  redis.call('ZADD', TAG .. 'votes', text(now + VOTE_KEPT), id)
  audit(id, 'close', now, 'outcome', word, 'by', by, 'reason', reason)
  for _, part in ipairs({'', ':ballots', ':audit'}) do redis.call('PEXPIRE', key .. part, VOTE_KEPT) end
  if v.run then tell(v.run, v.step, outcome(v.step, 'succeeded', result, at), now, 'vote ' .. id) end
  answer('vote ' .. id, {waiters = v.waiters}, word, result, now)
  vote_event('vote.closed', id, v, now, 'outcome', word, 'by', by, 'reason', reason)
end

-- Looks at an open vote, and closes it if it has come to something; between equal leaders a second round may be opened.
-- Returns its state, and ms until it has to be looked at again.
local function judge(id, v, final, by, now)
  local ballots = fields(redis.call('HGETALL', vote_key(id) .. ':ballots'))
  local t = count(v, ballots)
  local ends = tonumber(v.deadline)
  final = final or now >= ends
  if v.method == 'collect' then
    local word, reason = gathered(v, t, final, now)
    if word then
      close_vote(id, v, t, nil, word, nil, reason, by, now)
      return word, 0
    end
    ends = reason
  else
    local a = add_up(v, t)
    local word, winner, reason = verdict(v, t, a, ballots, final)
    if word and word ~= 'runoff' then
      close_vote(id, v, t, a, word, winner, reason, by, now)
      return word, 0
    end
    if word then
      local key = vote_key(id)
      v.round, v.eligible, ends = '2', table.concat(a.leaders, ' '), now + tonumber(v.lasts)
      v.deadline = text(ends)
      redis.call('HSET', key, 'round', '2', 'eligible', v.eligible, 'deadline', v.deadline)
      for agent, ballot in pairs(ballots) do
        if ballot ~= 'dead' then
          redis.call('HDEL', key .. ':ballots', agent)
          ballots[agent] = nil
        end
      end
      audit(id, 'runoff', now, 'eligible', v.eligible)
      vote_event('vote.runoff', id, v, now)
      ask(id, v, ballots, now)
    end
  end
  redis.call('ZADD', TAG .. 'due', text(ends), 'vote ' .. id)
  return 'open', ends - now
end

-- Opens a vote with these fields (a table) and asks its voters. Returns 'ok' | 'known' | 'conflict' (that id is another vote's),
-- its state and its result.
local function open_vote(id, v, now)
  local key = vote_key(id)
  local known = redis.call('HMGET', key, 'state', 'spec', 'result', 'waiters')
  if known[1] then
    if known[2] ~= v.spec then return {'conflict', known[1], ''} end
    if known[1] == 'open' and v.waiters and not string.find(' ' .. (known[4] or '') .. ' ', ' ' .. v.waiters .. ' ', 1, true) then
      redis.call('HSET', key, 'waiters', known[4] and known[4] .. ' ' .. v.waiters or v.waiters)
    end
    return {'known', known[1], known[3] or ''}
  end
  v.state, v.round, v.opened_at, v.began = 'open', '1', iso(now), text(now)
  v.deadline = text(now + tonumber(v.lasts))
  local flat = {}
  for name, value in pairs(v) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', key, unpack(flat))
  redis.call('ZREMRANGEBYSCORE', TAG .. 'votes', '-inf', text(now))
  redis.call('ZADD', TAG .. 'votes', text(tonumber(v.deadline) + VOTE_KEPT), id)
  audit(id, 'open', now, 'electorate', v.electorate, 'method', v.method, 'deadline', v.deadline)
  vote_event('vote.opened', id, v, now, 'question', v.question)
  ask(id, v, {}, now)
  local state = judge(id, v, false, v.source or '', now)
  return {'ok', state, state ~= 'open' and redis.call('HGET', key, 'result') or ''}
end

-- Whether the words are a ballot that this vote takes from `agent`; else what is wrong with them.
local function flaw(v, agent, ballot)
  if string.sub(ballot, 1, 8) == 'invalid ' then return nil end
  if v.method == 'collect' then return string.sub(ballot, 1, 7) ~= 'answer ' and 'not an answer' or nil end
  if ballot == 'abstain' then return nil end
  local places = {}
  for _, k in ipairs(open_to(v, agent)) do places[k] = true end
  local veto = string.match(ballot, '^veto (%d+)$')
  if veto then
    if v.veto ~= '1' then return 'this vote has no veto' end
    return not places[tonumber(veto)] and 'no such option' or nil
  end
  local list = string.match(ballot, '^[%d ]+$') and numbers(ballot) or {}
  if #list == 0 then return 'no option' end
  if #list > 1 and v.method ~= 'approval' and v.method ~= 'ranked' then return 'more than one option' end
  for _, k in ipairs(list) do
    if not places[k] then return 'no such option' end
    places[k] = nil
  end
end

-- A ballot of `agent` in the given round ('' for whatever round it is). Returns {word, state, ms until the vote is looked at
-- again}: 'ok' | 'invalid' (kept, and does not count) | 'duplicate' | 'foreign' | 'closed' | 'missing'.
local function cast(id, agent, round, ballot, said, now)
  local key = vote_key(id)
  local v = fields(redis.call('HGETALL', key))
  if not v.state then return {'missing', '', 0} end
  local word
  if v.state == 'open' and (v.cancel or now >= tonumber(v.deadline)) then v.state = judge(id, v, true, agent, now) end
  local known = redis.call('HGET', key .. ':ballots', agent)
  if not votes_in(v, agent) then
    word = 'foreign'
  elseif v.state ~= 'open' then
    word = known == ballot and 'ok' or 'closed'
  elseif round ~= '' and round ~= v.round then
    word = 'closed'
  else
    local why = flaw(v, agent, ballot)
    if why then ballot = 'invalid ' .. why end
    if known == ballot then
      word = why and 'invalid' or 'ok'
    elseif known and known ~= 'dead' and string.sub(known, 1, 8) ~= 'invalid ' and v.change ~= 'last' then
      word = 'duplicate'
    else
      redis.call('HSET', key .. ':ballots', agent, ballot)
      redis.call('HSET', key, 'last', text(now))
      v.last = text(now)
      audit(id, 'ballot', now, 'agent', agent, 'round', v.round, 'ballot', ballot, 'said', said)
      local state, left = judge(id, v, false, agent, now)
      return {string.sub(ballot, 1, 8) == 'invalid ' and 'invalid' or 'ok', state, left}
    end
  end
  if word == 'ok' or word == 'invalid' then return {word, v.state, 0} end
  -- What is refused is on record as well, up to a bound: anybody may send it.
  if redis.call('HINCRBY', key, 'refused', 1) <= 1000 then
    audit(id, 'refused', now, 'agent', agent, 'round', round, 'ballot', ballot, 'why', word)
  end
  return {word, v.state, 0}
end

-- The voter `agent` is gone. It is not waited for any longer; the quorum stays what it is.
local function mourn(id, agent, now)
  local key = vote_key(id)
  local v = fields(redis.call('HGETALL', key))
  if v.state ~= 'open' or redis.call('HEXISTS', key .. ':ballots', agent) == 1 then return end
  if not votes_in(v, agent) then return end
  redis.call('HSET', key .. ':ballots', agent, 'dead')
  audit(id, 'dead', now, 'agent', agent)
  judge(id, v, false, 'sweep', now)
end
