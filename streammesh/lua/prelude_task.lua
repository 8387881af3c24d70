-- Put after prelude.lua before every script: the life of a task, the boundaries of a flow, and what auctions need of both.

-- Ends the task `id` as a dead letter. Kept for a week as a record, until somebody replays or removes it as a letter.
local function bury(id, r, reason, why, now, detail)
  local at = iso(now)
  local place = letter(r.capability, id, r.payload, reason, why, r.attempt, r.agent, at)
  local key = TAG .. 'task:' .. id
  redis.call('HSET', key, 'state', 'dead', 'capability', r.capability, 'reason', reason, 'error', why, 'letter', place,
    'finished_at', at)
  if detail and detail ~= '' then redis.call('HSET', key, 'error_detail', detail) end
  redis.call('PEXPIRE', key, 604800000)
  event('task.dead', 'task', id, 'capability', r.capability, 'reason', reason, 'msg', why, 'at', at)
  answer(id, r, 'dead', why, now)
end

-- Puts the task `id` with the record `r` (a table) at the tail of its stream: entry added, record queued. Where that key
-- holds another type the task is buried, and nothing is returned.
local function put(id, r, now)
  local stream = TAG .. 'tasks:' .. r.capability
  local args = {'id', id, 'payload', r.payload or '{}', 'attempt', text((tonumber(r.attempt) or 0) + 1), 'at', iso(now)}
  for _, name in ipairs(WIRE) do
    if r[name] and (name ~= 'capability' or r.to) then
      args[#args + 1] = name
      args[#args + 1] = r[name]
    end
  end
  for name, value in pairs(r) do
    if string.sub(name, 1, 7) == 'header.' then
      args[#args + 1] = string.sub(name, 8)
      args[#args + 1] = value
    end
  end
  if r.to then
    stream = TAG .. 'inbox:' .. r.to
  elseif r.priority then
    stream = stream .. ':' .. r.priority
  end
  local kind = usable(stream)
  if not kind then return bury(id, r, 'stream_unusable', 'the key of its stream holds another type', now) end
  if kind == 'none' then make(stream, r.capability, r.to, now) end
  local entry = redis.call('XADD', stream, '*', unpack(args))
  redis.call('HSET', TAG .. 'task:' .. id, 'state', 'queued', 'entry', entry)
  return entry
end

-- The agent `me` hands the task `id` with the record `r` on to the agent `to`, or to the queue of its capability where that is ''.
-- No failure is counted. Who gets it was chosen for it, and may hand it on as well.
local function hand_on(id, r, me, to, why, now)
  local key = TAG .. 'task:' .. id
  r.refused = (r.refused and r.refused .. ' ' or '') .. me
  r.to = to ~= '' and to or nil
  redis.call('HSET', key, 'refused', r.refused)
  if r.to then redis.call('HSET', key, 'to', to, 'chosen', '1') else redis.call('HDEL', key, 'to', 'chosen') end
  put(id, r, now)
  event('task.delegated', 'task', id, 'agent', me, 'to', to, 'msg', why, 'at', iso(now))
end

-- A deadline in ms, of words that are ms since 1970 or '+ms' from now: the earliest of them.
local function earliest(words, now)
  local best
  for sign, digits in string.gmatch(words, '(%+?)(%d+)') do
    local ms = tonumber(digits) + (sign == '+' and now or 0)
    if not best or ms < best then best = ms end
  end
  return best and text(best) or words
end

-- The traceparent of a flow that brought none along, as record.trace_of makes it: four polynomial hashes of its id, because
-- not every interpreter that runs this has SHA-1.
local function trace_of(flow)
  local words = {}
  for i, m in ipairs({31, 131, 1313, 65599}) do
    local h = m
    for j = 1, #flow do h = (h * m + string.byte(flow, j)) % 4294967291 end
    words[i] = string.format('%08x', h)
  end
  return '00-' .. table.concat(words) .. '-' .. words[4] .. words[1] .. '-01'
end

-- One line in the story of the flow `correlation`: what was sent in it, and what became of that. Kept for a day.
local function trail(correlation, line)
  local key = TAG .. 'flow:' .. correlation
  if redis.call('RPUSH', key, cjson.encode(line)) > 20000 then
    redis.call('RPOP', key)
    redis.call('HINCRBY', TAG .. 'corr:' .. correlation, 'untold', 1)
  end
  redis.call('PEXPIRE', key, 86400000)
end

-- Refuses `what` for having come to a boundary: counted each time, told in the events once for each flow and guard.
local function refuse(guard, limit, f, what, now)
  redis.call('HINCRBY', TAG .. 'refused', guard, 1)
  local key = TAG .. 'corr:' .. f.correlation
  if redis.call('HSETNX', key, 'reached ' .. guard, '1') == 1 then
    redis.call('PEXPIRE', key, 3600000)
    event('boundary.reached', 'guard', guard, 'limit', limit, 'correlation', f.correlation, 'causation', f.causation or '',
      'what', what, 'source', f.source or f.by or '', 'path', f.via or '', 'at', iso(now))
  end
  return 'refused ' .. guard .. ' ' .. limit
end

-- Whether `what` ('message <type>' | 'task <capability>') with the fields `f` would go beyond a boundary of its flow. `f.bounds` says
-- 'hops count fan_out' (a fan-out of 0 is none). Returns nothing, or 'refused <guard> <limit>'.
local function bounded(f, what, now)
  local hops, count, fan = string.match(f.bounds or '', '^(%d+) (%d+) (%d+)$')
  if not hops or not f.correlation then return end
  if tonumber(f.hops or '0') > tonumber(hops) then return refuse('hops', hops, f, what, now) end
  if f.deadline and (tonumber(f.deadline) or now + 1) <= now then return refuse('deadline', f.deadline, f, what, now) end
  local key = TAG .. 'corr:' .. f.correlation
  local kind = string.match(what, '^%a+') .. 's'
  if redis.call('HINCRBY', key, kind, 1) > tonumber(count) then return refuse(kind, count, f, what, now) end
  if fan ~= '0' and f.causation and redis.call('HINCRBY', key, 'fan ' .. f.causation, 1) > tonumber(fan) then
    return refuse('fan_out', fan, f, what, now)
  end
  redis.call('PEXPIRE', key, 3600000)
end

-- Enqueues one task: record and entry, or record and due time. `kind` is what `usable` said of the stream, `extra` a flat list
-- of names and values for the record: `waiters priority to chosen` stay there, `header.x` is `x` in the entry, a deadline may be
-- '+ms' (and then a second one), `bounds` is for `bounded` alone. Returns 'ok', or 'duplicate <state>' or 'conflict <state>' for
-- a known id, or 'refused <guard> <limit>', and what the stream is now.
local function enqueue(stream, kind, capability, id, payload, when, extra, now, at)
  local key = TAG .. 'task:' .. id
  local known = redis.pcall('HMGET', key, 'state', 'payload')
  if known.err then return 'conflict unusable', kind end
  if known[1] then return (known[2] == payload and 'duplicate ' or 'conflict ') .. known[1], kind end
  local line
  for j = 1, #extra, 2 do
    if extra[j] == 'deadline' then extra[j + 1] = earliest(extra[j + 1], now) end
    if extra[j] == 'bounds' then line = fields(extra) end
  end
  if line then
    local refused = bounded(line, 'task ' .. capability, now)
    if refused then return refused, kind end
    trail(line.correlation, {what = 'task', id = id, name = capability, causation = line.causation, hops = line.hops, by = line.by,
      at = at})
  end
  local entry = {'id', id, 'payload', payload, 'attempt', '1', 'at', at}
  local record = {'state', 'queued', 'capability', capability, 'payload', payload, 'enqueued_at', at}
  for j = 1, #extra, 2 do
    local name, value = extra[j], extra[j + 1]
    if name ~= 'bounds' then
      record[#record + 1] = name
      record[#record + 1] = value
    end
    if name == 'to' then name, value = 'capability', capability end
    if name ~= 'waiters' and name ~= 'priority' and name ~= 'bounds' and name ~= 'chosen' then
      entry[#entry + 1] = string.sub(name, 1, 7) == 'header.' and string.sub(name, 8) or name
      entry[#entry + 1] = value
    end
  end
  if when == '' then
    if kind == 'none' then
      kind = 'stream'
      make(stream, capability, string.sub(stream, #TAG + 1, #TAG + 6) == 'inbox:' and string.sub(stream, #TAG + 7), now)
    end
    record[#record + 1] = 'entry'
    record[#record + 1] = redis.call('XADD', stream, '*', unpack(entry))
    redis.call('HSET', key, unpack(record))
  else
    local due = string.sub(when, 1, 1) == '+' and now + tonumber(string.sub(when, 2)) or tonumber(when)
    record[2] = 'delayed'
    record[#record + 1] = 'due'
    record[#record + 1] = text(due)
    redis.call('SADD', TAG .. 'caps', capability)
    redis.call('HSET', key, unpack(record))
    redis.call('ZADD', TAG .. 'due', text(due), 'task:' .. id)
  end
  return 'ok', kind
end

-- Cancels the task `id`: at once when it is queued or delayed, by a flag that its agent obeys when it runs.
-- Returns 'ok' | 'running <agent>' | 'closed <state>' | 'missing'
local function cancel(id, by, keep, now)
  local key = TAG .. 'task:' .. id
  local got = redis.pcall('HGETALL', key)
  local r = got.err and {} or fields(got)
  if not r.state then return 'missing' end
  if r.state == 'running' then
    redis.call('HSET', key, 'cancel', by)
    return 'running ' .. (r.agent or '')
  end
  if r.state ~= 'queued' and r.state ~= 'delayed' then return 'closed ' .. r.state end
  if r.state == 'delayed' then
    redis.call('ZREM', TAG .. 'due', 'task:' .. id)
  else
    local stream = r.to and TAG .. 'inbox:' .. r.to or TAG .. 'tasks:' .. r.capability .. (r.priority and ':' .. r.priority or '')
    away(stream, {r.entry})
  end
  redis.call('HSET', key, 'state', 'cancelled', 'error', 'cancelled by ' .. by, 'finished_at', iso(now))
  redis.call('PEXPIRE', key, keep)
  event('task.cancelled', 'task', id, 'capability', r.capability, 'msg', 'by ' .. by, 'at', iso(now))
  answer(id, r, 'cancelled', 'cancelled by ' .. by, now)
  return 'ok'
end

-- Puts a message into the mail of `agent` in this shard; further arguments are fields and values of the entry. The mail of
-- an agent that is gone is drained by the next sweep.
local function post(agent, kind, id, payload, now, ...)
  local stream = TAG .. 'mail:' .. agent
  if redis.call('EXISTS', stream) == 0 then make(stream, nil, agent, now) end
  redis.call('XADD', stream, '*', 'id', id, 'type', kind, 'payload', payload, 'at', iso(now), ...)
end

local AUCTION_ENDS = {done = true, failed = true, cancelled = true, expired = true, no_bids = true, all_refused = true}

-- What is remembered of `name` for a capability: works that went well and works in all, half as heavy an hour later.
local function history(capability, name, now)
  local said = redis.call('HGET', TAG .. 'history:' .. capability, name)
  local good, all, at = string.match(said or '', '^(%S+) (%S+) (%d+)$')
  if not good then return 0, 0 end
  local weight = 0.5 ^ (math.max(0, now - tonumber(at)) / 3600000)
  return tonumber(good) * weight, tonumber(all) * weight
end

-- Remembers how a work that `agent` had won ended.
local function remember(capability, agent, good, now)
  local name = string.gsub(agent, '%.%d+$', '')
  local well, all = history(capability, name, now)
  local key = TAG .. 'history:' .. capability
  redis.call('HSET', key, name, string.format('%.6f %.6f %.0f', well + (good and 1 or 0), all + 1, now))
  redis.call('PEXPIRE', key, 604800000)
end

-- Tells those whose bid did not win.
local function reject(id, winner, why, now)
  local flat = redis.call('HGETALL', TAG .. 'auction:' .. id .. ':bids')
  for i = 1, #flat, 2 do
    if flat[i] ~= winner and string.find(flat[i + 1], '"kind":"bid"', 1, true) then
      post(flat[i], 'auction.reject', id .. ':reject', '{"auction":"' .. id .. '","why":"' .. why .. '"}', now, 'causation', id)
    end
  end
end

-- Ends the auction `id`, once. `state` is its task's or its own; `value` is JSON where the work succeeded, and text else.
end_auction = function(id, state, value, now, reason)
  local key = TAG .. 'auction:' .. id
  local r = fields(redis.call('HGETALL', key))
  if not r.state or AUCTION_ENDS[r.state] then return end
  local well = state == 'succeeded' or state == 'done'
  local word = well and 'done' or state == 'dead' and 'failed' or state
  local at = iso(now)
  if r.state == 'working' then
    if word ~= 'cancelled' then remember(r.capability, r.winner, well, now) end
  elseif r.state ~= 'queued' then
    reject(id, '', word, now)
  end
  redis.call('HSET', key, 'state', word, well and 'result' or 'error', value, 'finished_at', at)
  if reason then redis.call('HSET', key, 'reason', reason) end
  redis.call('XADD', key .. ':audit', 'MAXLEN', '~', 1000, '*', 'type', word, 'at', at)
  redis.call('ZREM', TAG .. 'due', 'auction ' .. id)
  redis.call('ZREM', TAG .. 'auctions', id)
  for _, part in ipairs({'', ':bids', ':audit'}) do redis.call('PEXPIRE', key .. part, 3600000) end
  event('auction.ended', 'auction', id, 'capability', r.capability, 'state', word, 'agent', r.winner or '', 'correlation',
    r.correlation, 'causation', id, 'at', at)
  if r.run then tell(r.run, r.step, outcome(r.step, well and 'succeeded' or word, value, at), now, 'auction ' .. id) end
  answer('auction ' .. id, {waiters = r.waiters}, word, value, now)
end

-- Cancels the auction `id`: at once while nobody works on it, else as its task is cancelled.
-- Returns 'ok' | 'running <agent>' | 'closed <state>' | 'missing'
local function cancel_auction(id, by, now)
  local state = redis.call('HGET', TAG .. 'auction:' .. id, 'state')
  if not state then return 'missing' end
  if AUCTION_ENDS[state] then return 'closed ' .. state end
  if redis.call('EXISTS', TAG .. 'task:' .. id .. ':work') == 1 then return cancel(id .. ':work', by, '3600000', now) end
  end_auction(id, 'cancelled', 'cancelled by ' .. by, now)
  return 'ok'
end
