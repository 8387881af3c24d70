#!lua flags=allow-oom
-- Cancels tasks: queued and delayed ones at once, running ones by a flag that their agent obeys.
-- KEYS 1 prefix of the shard
-- ARGV 1 retention ms  2 who asks  3.. ids
-- Returns one line for each: 'ok' | 'running <agent>' | 'closed <state>' | 'missing'
-- Called by tasks.Tasks.cancel
local now = clock()
local at = iso(now)
local words = {}
for n = 3, #ARGV do
  local id = ARGV[n]
  local key = TAG .. 'task:' .. id
  local got = redis.pcall('HGETALL', key)
  local r = got.err and {} or fields(got)
  if not r.state then
    words[#words + 1] = 'missing'
  elseif r.state == 'running' then
    redis.call('HSET', key, 'cancel', ARGV[2])
    words[#words + 1] = 'running ' .. (r.agent or '')
  elseif r.state == 'queued' or r.state == 'delayed' then
    if r.state == 'delayed' then
      redis.call('ZREM', TAG .. 'due', 'task:' .. id)
    else
      local stream = r.to and TAG .. 'inbox:' .. r.to or TAG .. 'tasks:' .. r.capability .. (r.priority and ':' .. r.priority or '')
      away(stream, {r.entry})
    end
    redis.call('HSET', key, 'state', 'cancelled', 'error', 'cancelled by ' .. ARGV[2], 'finished_at', at)
    redis.call('PEXPIRE', key, ARGV[1])
    event('task.cancelled', 'task', id, 'capability', r.capability, 'msg', 'by ' .. ARGV[2], 'at', at)
    answer(id, r.waiters, 'cancelled', 'cancelled by ' .. ARGV[2])
    words[#words + 1] = 'ok'
  else
    words[#words + 1] = 'closed ' .. r.state
  end
end
return words
