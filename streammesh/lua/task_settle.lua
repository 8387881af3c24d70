#!lua flags=allow-oom
-- Settles a batch of attempts: outcome, acknowledgement, deletion, retention and the waiter's reply of each, all or none.
-- KEYS 1 prefix of the shard  2.. streams that the items name
-- ARGV 1 agent  2 number of items, then eight for each: index into KEYS, entry, id ('' for a message), attempt, verb, a, b, c
--   complete a=result (JSON)  b=retention ms            fail    a=error  b=ms until the next attempt  c=detail
--   again    a=reason         b=ms until then           dead    a=error  b=reason (a word)            c=detail
--   reject   a=reason         b=retention ms            cancel  a=why    b=retention ms
--   expire   a=why            b=retention ms            release (handed back: no failure is counted)
--   delegate a=why          b=agent that shall have it ('' for the queue of its capability)
--   ack      (message) a=its id, flow and what the client calls it (the last two may be left out)
--            b=client that waits     c=word and answer, as 'replied {json}'; or 'dead <error>' with b=payload
-- Returns one word for each: 'ok' | 'stale' (not the owner; nothing changed) | 'broken' (the record is no hash)
-- Fence: the record is running, owned by this agent, in this attempt. Safe to repeat: an attempt that this agent settled
-- already answers 'ok' again, unless its task was queued anew since: then it is 'stale', and nothing changes.
-- Called by tasks.Tasks.settle
local me = ARGV[1]
local now = clock()
local at = iso(now)
local verdicts, done = {}, {}
local ends = {complete = 'succeeded', reject = 'failed', cancel = 'cancelled', expire = 'expired'}
local leads = {dead = 'dead', fail = 'delayed', again = 'delayed', release = 'queued', delegate = 'queued'}
for verb, state in pairs(ends) do leads[verb] = state end

for n = 1, tonumber(ARGV[2]) do
  local i = 3 + (n - 1) * 8
  local s, entry, id, attempt, verb = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local a, b, c = ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local verdict = 'ok'
  if verb == 'ack' then
    local p = redis.pcall('XPENDING', KEYS[s], 'agents', entry, entry, 1)
    if not p.err and p[1] and p[1][2] == me then
      local space = string.find(c, ' ', 1, true)
      local word, said = string.sub(c, 1, (space or 1) - 1), string.sub(c, (space or 0) + 1)
      local id, flow, asked = string.match(a, '^(%S*) ?(%S*) ?(%S*)$')
      if id then a = asked ~= '' and asked or id end
      if flow and flow ~= '' then
        trail(flow, {what = 'heard', id = id, by = me, state = word, at = at,
          error = word ~= 'replied' and word ~= 'forwarded' and said or nil})
      end
      if word == 'dead' then
        letter('inbox', id or a, b, 'message_failed', said, '1', me, at)
      elseif word == 'not_understood' and b == '' then
        event('message.not_understood', 'message', a, 'agent', me, 'correlation', flow or '', 'msg', said, 'at', at)
      elseif b ~= '' and space and word ~= 'forwarded' then
        local stream = TAG .. 'replies:' .. b
        redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', a, 'state', word, 'value', said)
        redis.call('PEXPIRE', stream, 600000)
      end
    else
      verdict = 'stale'
    end
  else
    local key = key_of(id)
    local r = redis.pcall('HMGET', key, 'state', 'agent', 'attempt', 'waiters', 'entry', 'cancel', 'run', 'step')
    if r.err then
      verdict = 'broken'
    elseif r[2] ~= me or r[3] ~= attempt or (r[5] ~= entry and not (leads[verb] == 'queued' and r[1] == 'queued')) then
      verdict = 'stale'
    elseif r[1] ~= 'running' then
      -- Settled by this very attempt, or ended by somebody else: in both cases nothing of it is left to do.
      verdict = (r[1] == leads[verb] or (r[1] == 'cancelled' and r[6] and not ends[verb] and verb ~= 'dead')) and 'ok' or 'stale'
    elseif ends[verb] or r[6] and verb ~= 'dead' then
      -- A cancelled task does not come back: what would have been another attempt ends it.
      local state = ends[verb] or 'cancelled'
      if not ends[verb] then a, b = 'cancelled by ' .. r[6], '3600000' end
      redis.call('HSET', key, 'state', state, verb == 'complete' and 'result' or 'error', a, 'finished_at', at)
      redis.call('PEXPIRE', key, b)
      if verb ~= 'complete' then event('task.' .. state, 'task', id, 'msg', a, 'at', at) end
      if r[4] or r[7] then answer(id, {waiters = r[4], run = r[7], step = r[8]}, state, a, now) end
    elseif verb == 'fail' or verb == 'again' then
      local due = text(now + tonumber(b))
      redis.call('HSET', key, 'state', 'delayed', 'error', a, 'due', due)
      if c ~= '' then redis.call('HSET', key, 'error_detail', c) end
      if verb == 'fail' then redis.call('HINCRBY', key, 'failures', 1) end
      redis.call('ZADD', TAG .. 'due', due, 'task:' .. id)
      event('task.delayed', 'task', id, 'agent', me, 'attempt', attempt, 'msg', a, 'at', at)
    elseif verb == 'dead' then
      bury(id, fields(redis.call('HGETALL', key)), b, a, now, c)
    elseif verb == 'delegate' then
      hand_on(id, fields(redis.call('HGETALL', key)), me, b, a, now)
    elseif string.sub(id, 1, 4) == 'run ' then
      local head = redis.call('HMGET', key, 'capability', 'version')
      wake(string.sub(id, 5), head[1], head[2], now)
    else
      put(id, fields(redis.call('HGETALL', key)), now)
    end
  end
  verdicts[n] = verdict
  if verdict == 'ok' then
    done[s] = done[s] or {}
    table.insert(done[s], entry)
  end
end

for s, entries in pairs(done) do away(KEYS[s], entries) end
return verdicts
