#!lua
-- Commits what executions have come to: journal records and their effects, and whether each goes on, parks or ends; for
-- each run all or none.
-- With prelude_auction, prelude_vote, prelude_run
-- KEYS 1 prefix of the shard  2.. streams of step tasks that the effects name
-- ARGV 1 agent  2 number of items, then for each: id, attempt, commit (a word that differs in each commit of the attempt),
--      seen (journal records known), the end of the last of these, then (continue | park | succeeded | failed | cancelled | stuck | again), its value (for
--      park: names of awaited signals as JSON, or ''), retention ms, number of records, the records (JSON), number of
--      effects, then for each: verb, path, number of arguments, the arguments
--        task    index into KEYS, capability, task id, payload, when, then pairs     timer   ms since 1970
--        vote    vote id, then pairs as of vote_open
--        drop    target ('task <id>' | 'timer' | 'child <id>' | 'vote <id>' | 'wait')               wait    what for
--        child   run id, workflow, version, input, close policy                      status  JSON
--        redis   `after`, number of writes, then for each: number of words, the words (see writes.py)
--        auction its id, number of terms, the terms (see auction_open), then the bidders
-- Returns for each {word, records told meanwhile …}: 'ok' | 'more' (there is something unread: nothing was changed, read it
--      and come again) | 'fenced' (no longer this attempt's run; nothing was changed)
-- Fence: the head is running, owned by this agent, in this attempt. Safe to repeat: a commit that was applied answers 'ok'.
-- Called by journal.Journal.commit
local me = ARGV[1]
local now = clock()
local at = iso(now)
local out = {}
local i = 3

-- Reads one item: moves i past it and returns its head, the place of its records and of its effects.
local function item()
  local h = i
  local records = tonumber(ARGV[h + 8])
  local e = h + 9 + records
  local effects = tonumber(ARGV[e])
  local p = e + 1
  for _ = 1, effects do p = p + 3 + tonumber(ARGV[p + 2]) end
  i = p
  return h, records, e + 1, effects
end

local function reply_json(value)
  if type(value) == 'number' then return text(value) end
  if type(value) == 'table' then value = value.ok end
  return value and cjson.encode(value) or 'null'
end

-- The writes that a workflow may commit, by the type of key that they want ('any': whatever is there).
local WRITES = {
  string = ' SET SETNX SETEX PSETEX APPEND INCR INCRBY INCRBYFLOAT DECR DECRBY ',
  hash = ' HSET HSETNX HDEL HINCRBY HINCRBYFLOAT ', list = ' LPUSH RPUSH LREM LTRIM ', set = ' SADD SREM ',
  zset = ' ZADD ZINCRBY ZREM ', stream = ' XADD ', any = ' DEL EXPIRE PEXPIRE PERSIST ',
}

-- Applies a workflow's own writes; returns their journal record. The types of all keys are looked at before the first of them.
local function write(path, a)
  local place, whys, replies = a + 2, nil, {}
  local count = tonumber(ARGV[a + 1])
  for n = 1, count do
    local name, k = ARGV[place + 1], ARGV[place + 2]
    local wanted, kind = nil, redis.call('TYPE', k)
    for wants, names in pairs(WRITES) do
      if string.find(names, ' ' .. name .. ' ', 1, true) then wanted = wants end
    end
    kind = kind.ok or kind
    if not wanted or string.sub(k, 1, #TAG + 5) ~= TAG .. 'user:' then
      whys = whys or name .. ' of this key is not allowed'
    elseif wanted ~= 'any' and kind ~= 'none' and kind ~= wanted and name ~= 'SET' then
      whys = whys or 'nothing was written: ' .. name .. ' wants a ' .. wanted .. ', and ' .. k .. ' is a ' .. kind
    end
    place = place + 1 + tonumber(ARGV[place])
  end
  place = a + 2
  for n = 1, whys and 0 or count do
    local words = tonumber(ARGV[place])
    local got = redis.pcall(unpack(ARGV, place + 1, place + words))
    if type(got) == 'table' and got.err then
      whys = 'write ' .. n .. ' of ' .. count .. ' (' .. ARGV[place + 1] .. ' ' .. ARGV[place + 2] .. ') was refused, those before it are done: ' .. got.err
      break
    end
    replies[n] = reply_json(got)
    place = place + 1 + words
  end
  return '{"what":"step","path":"' .. path .. '","name":"redis",' ..
    (whys and '"error":' .. cjson.encode(whys) or '"result":[' .. table.concat(replies, ',') .. ']') ..
    ',"after":' .. ARGV[a] .. ',"at":"' .. at .. '"}'
end

-- `flow`: hops, bounds and traceparent of the run, where a handler started it.
local function effect(id, key, p, flow)
  local verb, path, count = ARGV[p], ARGV[p + 1], tonumber(ARGV[p + 2])
  local a = p + 3
  if verb == 'task' then
    local extra = {'run', id, 'step', path}
    for j = a + 5, a + count - 1 do extra[#extra + 1] = ARGV[j] end
    if flow[2] then
      for _, word in ipairs({'causation', id, 'hops', text((tonumber(flow[1]) or 0) + 1), 'bounds', flow[2]}) do extra[#extra + 1] = word end
    end
    if flow[3] then
      extra[#extra + 1] = 'traceparent'
      extra[#extra + 1] = flow[3]
    end
    redis.call('HSET', key, 'open ' .. path, 'task ' .. ARGV[a + 2])
    local stream = KEYS[tonumber(ARGV[a])]
    local kind = usable(stream)
    local word = kind and enqueue(stream, kind, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], extra, now, at)
    if word ~= 'ok' then
      -- Nothing was enqueued and nobody would ever answer: the refusal is the answer.
      local refused = word and string.match(word, '^refused (.+)$')
      local why = refused and 'it came to a boundary of its flow: ' .. refused or
        kind and 'there is a task ' .. ARGV[a + 2] .. ' already: ' .. word or 'the key of its stream holds another type'
      tell(id, path, outcome(path, 'dead', why, at), now)
    end
  elseif verb == 'timer' then
    redis.call('HSET', key, 'open ' .. path, 'timer ' .. ARGV[a])
    redis.call('ZADD', TAG .. 'due', ARGV[a], 'run ' .. id .. ' ' .. path)
  elseif verb == 'wait' then
    redis.call('HSET', key, 'open ' .. path, ARGV[a])
  elseif verb == 'child' then
    redis.call('HSET', key, 'open ' .. path, 'child ' .. ARGV[a] .. ' ' .. ARGV[a + 4])
    local word = start(ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], 'attach', 0, 0, 0, now)
    -- One child may be asked for in two places, which both wait for it.
    local known = redis.call('HMGET', TAG .. 'run:' .. ARGV[a], 'parent', 'path')
    redis.call('HSET', TAG .. 'run:' .. ARGV[a], 'parent', id, 'path', known[1] == id and known[2] .. ' ' .. path or path)
    if flow[2] then
      redis.call('HSET', TAG .. 'run:' .. ARGV[a], 'hops', text((tonumber(flow[1]) or 0) + 1), 'bounds', flow[2])
    end
    redis.call('HSETNX', TAG .. 'run:' .. ARGV[a], 'traceparent', flow[3] or trace_of(id))
    if word ~= 'ok' then report(ARGV[a], now) end
  elseif verb == 'auction' then
    redis.call('HSET', key, 'open ' .. path, 'auction ' .. ARGV[a])
    local terms = {run = id, step = path, traceparent = flow[3] or nil}
    local first = a + 2 + 2 * tonumber(ARGV[a + 1])
    for j = a + 2, first - 1, 2 do terms[ARGV[j]] = ARGV[j + 1] end
    local word = open_auction(ARGV[a], terms, {unpack(ARGV, first, a + count - 1)}, now)
    if word ~= 'ok' then
      tell(id, path, outcome(path, 'failed', 'there is an auction ' .. ARGV[a] .. ' already: ' .. word, at), now)
    end
  elseif verb == 'vote' then
    redis.call('HSET', key, 'open ' .. path, 'vote ' .. ARGV[a])
    local v = {run = id, step = path, traceparent = flow[3] or nil}
    for j = a + 1, a + count - 1, 2 do v[ARGV[j]] = ARGV[j + 1] end
    local word = open_vote(ARGV[a], v, now)[1]
    if word ~= 'ok' then tell(id, path, outcome(path, 'dead', 'there is a vote ' .. ARGV[a] .. ' already', at), now) end
  elseif verb == 'redis' then
    tell(id, '', write(path, a), now)
  elseif verb == 'status' then
    redis.call('HSET', key, 'status', ARGV[a])
  elseif verb == 'drop' then
    if redis.call('HDEL', key, 'open ' .. path) == 1 then release_command(id, path, ARGV[a], now) end
  end
  return a + count
end

for n = 1, tonumber(ARGV[2]) do
  local h, records, p, effects = item()
  local id, attempt, commit, seen, word = ARGV[h], ARGV[h + 1], ARGV[h + 2], tonumber(ARGV[h + 3]), ARGV[h + 5]
  local key = TAG .. 'run:' .. id
  local journal = key .. ':journal'
  local r = redis.call('HMGET', key, 'state', 'agent', 'attempt', 'commit', 'committed_at', 'entry', 'capability', 'version')
  if r[2] ~= me or r[3] ~= attempt then
    out[n] = {'fenced'}
  elseif r[4] == attempt .. '.' .. commit then
    local before = tonumber(r[5])
    local tail = before > seen and notes(key, seen, before - 1) or {}
    table.insert(tail, 1, 'ok')
    out[n] = tail
  elseif r[1] ~= 'running' then
    out[n] = {'fenced'}
  else
    local tail = notes(key, seen - 1, -1)
    local last = table.remove(tail, 1)
    if not last or string.sub(last, -#ARGV[h + 4]) ~= ARGV[h + 4] then
      -- The server was killed and has lost the end of the journal. What was executed beyond it must not be built upon: it
      -- begins anew from what there is.
      redis.call('XACK', runs_of(r[7], r[8]), 'agents', r[6])
      redis.call('XDEL', runs_of(r[7], r[8]), r[6])
      wake(id, r[7], r[8], now)
      event('run.rolled_back', 'run', id, 'workflow', r[7], 'agent', me, 'at', at)
      out[n] = {'fenced'}
    elseif #tail > 0 and word ~= 'continue' then
      table.insert(tail, 1, 'more')
      out[n] = tail
    else
      for j = h + 9, h + 8 + records do note(key, ARGV[j]) end
      local flow = effects > 0 and redis.call('HMGET', key, 'hops', 'bounds', 'traceparent')
      for _ = 1, effects do p = effect(id, key, p, flow) end
      if records > 0 then redis.call('HDEL', key, 'deaths') end
      if records > 0 or effects > 0 or word ~= 'continue' then
        redis.call('HSET', key, 'commit', attempt .. '.' .. commit, 'committed_at', seen + #tail)
      end
      if word ~= 'continue' then
        local stream = runs_of(r[7], r[8])
        redis.call('XACK', stream, 'agents', r[6])
        redis.call('XDEL', stream, r[6])
        if word == 'park' then
          -- Tasks, timers and children are open commands; the signals that it waits for only its own code knows.
          redis.call('HSET', key, 'state', 'parked')
          if ARGV[h + 6] ~= '' then redis.call('HSET', key, 'waits', ARGV[h + 6]) else redis.call('HDEL', key, 'waits') end
          -- What its own effects told it, such as the end of a child that was there already, is not read either.
          if redis.call('LLEN', journal) > seen + records then wake(id, r[7], r[8], now) end
        elseif word == 'stuck' then
          redis.call('HSET', key, 'state', 'stuck', 'error', ARGV[h + 6])
          event('run.stuck', 'run', id, 'workflow', r[7], 'msg', ARGV[h + 6], 'at', at)
        elseif word == 'again' then
          -- continue-as-new: the journal begins anew, with what was not read of the signals. What is still open belongs to
          -- the old one.
          release_all(id, fields(redis.call('HGETALL', key)), now)
          redis.call('DEL', journal, key .. ':large')
          for j = h + 9, h + 8 + records do note(key, ARGV[j]) end
          redis.call('HINCRBY', key, 'generation', 1)
          wake(id, r[7], r[8], now)
        else
          finish_run(id, word, ARGV[h + 6], ARGV[h + 7], now)
        end
      end
      table.insert(tail, 1, 'ok')
      out[n] = tail
    end
  end
end
return out
