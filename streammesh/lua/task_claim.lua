#!lua flags=allow-oom
-- Gives an agent up to `count` entries: orphans of dead agents first, then what its blocking read brought, then new ones.
-- Every entry becomes a running task of this agent, with its attempt raised, or is taken away because nobody wants it.
-- KEYS 1 prefix of the shard  2.. streams, in the order to be served
-- ARGV 1 agent  2 count  3 lease ms  4 retention ms of what is found expired or cancelled  5 deaths that make a task poison
--      6 number of entries that the agent has read, then for each: index into KEYS, entry id
--      then the number of dead consumers, then for each: index into KEYS (negative: it is known to be gone, so that its entries
--      need not have been idle for a lease), consumer
--      then for each stream from KEYS 2 on: the capability ('' for an inbox, 'mail <agent>' for messages), the first word
--      of its raw ids
-- Returns {items, skipped}; an item is {index into KEYS, entry, id ('' for a message), attempt, failures, deaths, fields}
-- Called by claims.Claims._claim
local me, left, lease, keep, poison = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local now = clock()
local at = iso(now)
local items, skipped = {}, 0
local gone = {}

local function drop(s, entry)
  gone[s] = gone[s] or {}
  table.insert(gone[s], entry)
  skipped = skipped + 1
end

local given = tonumber(ARGV[6])
local orphans_at = 7 + 2 * given
local orphans = tonumber(ARGV[orphans_at])
local about = orphans_at + 2 * orphans + 1

-- Ends what must not run: expired or cancelled before it began.
local function finish(id, state, why, r)
  local key = TAG .. 'task:' .. id
  redis.call('HSET', key, 'state', state, 'error', why, 'finished_at', at)
  redis.call('PEXPIRE', key, keep)
  event('task.' .. state, 'task', id, 'msg', why, 'at', at)
  answer(id, {waiters = r[8], run = r[9], step = r[10]}, state, why, now)
end

-- A wake-up: the run is this agent's until it parks or ends; its journal comes along.
local function take_run(s, entry, f, dead, client, workflow)
  local id = identity(f, entry, ARGV[about + 2 * (s - 2) + 1])
  local key = TAG .. 'run:' .. id
  local r = redis.pcall('HMGET', key, 'state', 'entry', 'attempt', 'deaths', 'agent', 'hops', 'traceparent')
  if r.err then return drop(s, entry) end
  if not r[1] and f.payload then
    -- Started by a bare XADD.
    redis.call('HSET', key, 'state', 'queued', 'capability', workflow, 'version', '1', 'started_at', at)
    note(key, '{"what":"start","workflow":"' .. workflow .. '","version":1,"input":' ..
      f.payload .. ',"at":"' .. at .. '"}')
  elseif r[2] ~= entry or (r[1] ~= 'queued' and r[1] ~= 'running') then
    return drop(s, entry)
  elseif r[1] == 'running' and r[5] ~= dead then
    return
  end
  local deaths = tonumber(r[4]) or 0
  if r[1] == 'running' then
    deaths = redis.call('HINCRBY', key, 'deaths', 1)
    event('run.reclaimed', 'run', id, 'workflow', workflow, 'agent', dead, 'deaths', deaths, 'at', at)
    if deaths >= 2 * poison then
      redis.call('HSET', key, 'state', 'stuck', 'error', 'its agent died ' .. deaths .. ' times in a row while executing it')
      event('run.stuck', 'run', id, 'workflow', workflow, 'at', at)
      return drop(s, entry)
    end
  end
  local attempt = (tonumber(r[3]) or 0) + 1
  redis.call('HSET', key, 'state', 'running', 'agent', me, 'client', client, 'attempt', attempt, 'entry', entry)
  items[#items + 1] = {s, entry, 'run ' .. id, attempt, (r[6] or '0') .. ' ' .. (r[7] or ''), deaths, notes(key, 0, -1)}
  left = left - 1
end

local function take(s, entry, flat, dead)
  local f = fields(flat)
  local capability = ARGV[about + 2 * (s - 2)]
  local client, workflow = string.match(capability, '^run (%S+) (.+)$')
  if client then return take_run(s, entry, f, dead, client, workflow) end
  local mail = string.sub(capability, 1, 5) == 'mail '
  if capability == '' or mail then
    if f.type or mail then
      items[#items + 1] = {s, entry, '', 0, 0, 0, flat}
      left = left - 1
      return
    end
    capability = f.capability or 'inbox'
  end
  local id = identity(f, entry, ARGV[about + 2 * (s - 2) + 1])
  local key = TAG .. 'task:' .. id
  local r = redis.pcall('HMGET', key, 'state', 'entry', 'attempt', 'failures', 'deaths', 'cancel', 'agent', 'waiters', 'run', 'step')
  if r.err then
    letter(capability, id, f.payload, 'record_unusable', 'the key of the record holds another type', nil, nil, at)
    return drop(s, entry)
  end
  local state, attempt, deaths = r[1], (tonumber(r[3]) or 0) + 1, tonumber(r[5]) or 0
  if not state then
    if #flat > WIDEST then
      letter(capability, id, f.payload, 'invalid_payload', 'the entry has ' .. #flat / 2 .. ' fields', nil, nil, at)
      return drop(s, entry)
    end
    adopt(id, f, capability, entry, now)
  elseif r[2] ~= entry or (state ~= 'queued' and state ~= 'running') then
    return drop(s, entry)
  elseif state == 'running' and r[7] ~= dead then
    -- It runs already, with somebody who may live: with us, when this claim is asked again since its reply was lost, or
    -- with another, when the group was made anew. The entry stays: its owner settles it, or it is handed back as a stray.
    return
  end
  if r[6] then
    -- Asked to be cancelled in an attempt that could not obey: it died, or failed.
    finish(id, 'cancelled', 'cancelled by ' .. r[6], r)
    return drop(s, entry)
  end
  if state == 'running' then
    deaths = deaths + 1
    redis.call('HSET', key, 'deaths', deaths)
    event('task.reclaimed', 'task', id, 'capability', capability, 'agent', dead, 'deaths', deaths, 'at', at)
    if deaths >= poison then
      bury(id, {capability = capability, payload = f.payload, attempt = r[3], agent = dead, waiters = r[8],
        run = r[9], step = r[10]}, 'poison',
        'its agent died ' .. deaths .. ' times while running it', now)
      -- Without an owner: were the last one to come back, its own outcome must not look as if it had been recorded.
      redis.call('HDEL', key, 'agent')
      return drop(s, entry)
    end
  end
  if r[9] and redis.call('HGET', TAG .. 'run:' .. r[9], 'open ' .. r[10]) ~= 'task ' .. id then
    finish(id, 'cancelled', 'its run no longer waits for it', {[8] = r[8]})
    return drop(s, entry)
  end
  -- A deadline that is no number is the agent's to judge: it makes a dead letter of it.
  if f.deadline and (tonumber(f.deadline) or now + 1) <= now then
    finish(id, 'expired', 'its deadline passed before it could start', r)
    return drop(s, entry)
  end
  redis.call('HSET', key, 'state', 'running', 'agent', me, 'attempt', attempt, 'started_at', at)
  items[#items + 1] = {s, entry, id, attempt, tonumber(r[4]) or 0, deaths, flat}
  left = left - 1
end

if orphans > 0 and (tonumber(redis.call('HGET', TAG .. 'sweep', 'grace')) or 0) <= now then
  for i = orphans_at + 1, orphans_at + 2 * orphans, 2 do
    local s, consumer, idle = tonumber(ARGV[i]), ARGV[i + 1], lease
    if s < 0 then s, idle = -s, 0 end
    if left > 0 then
      local pending = redis.pcall('XPENDING', KEYS[s], 'agents', 'IDLE', idle, '-', '+', left, consumer)
      for _, p in ipairs(pending.err and {} or pending) do
        local got = redis.call('XCLAIM', KEYS[s], 'agents', me, idle, p[1])
        if got[1] and got[1][2] then
          take(s, p[1], got[1][2], consumer)
        else
          event('stream.entry_lost', 'stream', KEYS[s], 'entry', p[1], 'at', at)
          redis.call('XACK', KEYS[s], 'agents', p[1])
        end
      end
    end
  end
end

for i = 7, 6 + 2 * given, 2 do
  local s, entry = tonumber(ARGV[i]), ARGV[i + 1]
  local p = redis.pcall('XPENDING', KEYS[s], 'agents', entry, entry, 1)
  if not p.err and p[1] and p[1][2] == me then
    local got = redis.call('XRANGE', KEYS[s], entry, entry)
    if got[1] then take(s, entry, got[1][2]) else redis.call('XACK', KEYS[s], 'agents', entry) end
  end
end

for s = 2, #KEYS do
  if left <= 0 then break end
  local got = redis.pcall('XREADGROUP', 'GROUP', 'agents', me, 'COUNT', left, 'STREAMS', KEYS[s], '>')
  if got and got.err then
    if string.find(tostring(got.err), 'NOGROUP') then
      -- The stream or its group went away: data was lost or deleted. Begin again at its first entry, and say so.
      -- An inbox that was drained while its agent seemed dead is listed again, or nobody would drain it the next time.
      local capability = ARGV[about + 2 * (s - 2)]
      if string.sub(capability, 1, 4) == 'run ' then
        redis.call('XGROUP', 'CREATE', KEYS[s], 'agents', '0', 'MKSTREAM')
      else
        make(KEYS[s], capability, (capability == '' or string.sub(capability, 1, 5) == 'mail ') and me, now)
      end
      event('stream.group_recreated', 'stream', KEYS[s], 'at', at)
    else
      -- Not a stream any more. The others go on.
      event('stream.unusable', 'stream', KEYS[s], 'msg', tostring(got.err), 'at', at)
    end
  elseif got and got[1] then
    for _, e in ipairs(got[1][2]) do take(s, e[1], e[2]) end
  end
end

for s, entries in pairs(gone) do away(KEYS[s], entries) end
return {items, skipped}
