#!lua flags=allow-oom
-- The winner has reserved a slot: the work becomes a task in its inbox, running there already. Or it has no slot: next best.
-- With prelude_auction
-- KEYS 1 prefix of the shard
-- ARGV 1 id  2 agent  3 number of the award  4 'confirm' | 'decline'
-- Returns {'ok', entry, task id, attempt, failures, fields of the entry} | {'declined'} | {'stale'} (not, or no longer, its award)
-- Called by auctions.Auctions.confirm
local id, me = ARGV[1], ARGV[2]
local now = clock()
local key, work = TAG .. 'auction:' .. id, ARGV[1] .. ':work'
local a = fields(redis.call('HGETALL', key))
if a.winner ~= me or a.award ~= ARGV[3] then return {'stale'} end
local task = TAG .. 'task:' .. work
local r = fields(redis.call('HGETALL', task))
local stream = TAG .. 'inbox:' .. me

local function given(entry, attempt, failures)
  local got = redis.call('XRANGE', stream, entry, entry)
  return {'ok', entry, work, tonumber(attempt), tonumber(failures) or 0, got[1] and got[1][2] or {}}
end

if a.state == 'working' and r.state == 'running' and r.agent == me and a.begun == r.attempt then
  -- Confirmed already; the reply was lost.
  return given(r.entry, r.attempt, r.failures)
end
if a.state ~= 'awarded' then return {'stale'} end
if ARGV[4] == 'decline' then
  audit(id, 'declined', now, 'bidder', me)
  award_next(id, a, now)
  return {'declined'}
end
if r.state and r.state ~= 'delayed' then
  -- It went to the queue by itself meanwhile.
  redis.call('HSET', key, 'state', 'queued', 'winner', '')
  return {'stale'}
end
local kind = usable(stream)
if not kind then
  award_next(id, a, now)
  return {'stale'}
end
local at = iso(now)
if r.state then
  redis.call('ZREM', TAG .. 'due', 'task:' .. work)
  redis.call('HDEL', task, 'due')
  redis.call('HSET', task, 'to', me)
  r.to = me
  put(work, r, now)
else
  local extra = {'to', me, 'waiters', 'auction', 'correlation', a.correlation, 'causation', id}
  if a.deadline then extra[#extra + 1], extra[#extra + 2] = 'deadline', a.deadline end
  enqueue(stream, kind, a.capability, work, a.payload, '', extra, now, at)
end
local attempt = (tonumber(r.attempt) or 0) + 1
redis.call('HSET', task, 'state', 'running', 'agent', me, 'attempt', attempt, 'started_at', at)
redis.call('HSET', key, 'state', 'working', 'confirmed_at', at, 'begun', attempt)
redis.call('ZREM', TAG .. 'due', 'auction ' .. id)
audit(id, 'confirmed', now, 'bidder', me, 'attempt', attempt)
event('auction.confirmed', 'auction', id, 'capability', a.capability, 'agent', me, 'task', work, 'correlation', a.correlation,
  'causation', id, 'at', at)
reject(id, me, 'lost', now)
return given(redis.call('HGET', task, 'entry'), attempt, r.failures)
