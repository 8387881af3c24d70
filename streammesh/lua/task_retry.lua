#!lua
-- Runs finished tasks again, under the same id and with a fresh budget; their dead letters are taken away.
-- KEYS 1 prefix of the shard
-- ARGV 1 a word of this call's own, so that asking again is no second run
--      then three for each: id, capability, entry id of the dead letter ('' to read it from the record)
-- Returns one line for each: 'ok <id>' | 'open <state>' | 'missing' | 'message' (the letter was one: it cannot be run)
-- Called by dead.DeadLetters.replay and tasks.Tasks.retry
local now = clock()
local words = {}
for i = 2, #ARGV, 3 do
  local id, capability, letter = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local kept
  if letter ~= '' then
    local got = redis.call('XRANGE', TAG .. 'dead:' .. capability, letter, letter)
    kept = got[1] and fields(got[1][2])
    if kept then id = kept.id end
  end
  local key = TAG .. 'task:' .. id
  local got = redis.pcall('HGETALL', key)
  local r = got.err and {} or fields(got)
  local is_message = kept and string.sub(kept.reason or '', 1, 8) == 'message_'
  if not r.state and kept and not got.err and not is_message then
    r = {state = 'dead', capability = capability, payload = kept.payload, letter = letter}
  end
  if is_message then
    words[#words + 1] = 'message'
  elseif r.retried == ARGV[1] then
    words[#words + 1] = 'ok ' .. id
  elseif not r.state or (letter ~= '' and not kept) then
    words[#words + 1] = 'missing'
  elseif r.state == 'queued' or r.state == 'delayed' or r.state == 'running' then
    words[#words + 1] = 'open ' .. r.state
  else
    redis.call('PERSIST', key)
    redis.call('HDEL', key, 'failures', 'deaths', 'error', 'error_detail', 'reason', 'letter', 'finished_at', 'result', 'cancel',
      'deadline', 'progress', 'to', 'chosen', 'refused')
    r.deadline, r.to, r.refused = nil, nil, nil
    redis.call('HSET', key, 'capability', r.capability, 'payload', r.payload or '{}', 'enqueued_at', iso(now), 'retried', ARGV[1])
    put(id, r, now)
    -- A letter that could not be kept has no place ('').
    if r.letter and r.letter ~= '' then redis.pcall('XDEL', TAG .. 'dead:' .. r.capability, r.letter) end
    if letter ~= '' and letter ~= r.letter then redis.call('XDEL', TAG .. 'dead:' .. capability, letter) end
    event('task.retried', 'task', id, 'capability', r.capability, 'at', iso(now))
    words[#words + 1] = 'ok ' .. id
  end
end
return words
