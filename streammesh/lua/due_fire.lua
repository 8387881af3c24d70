#!lua flags=allow-oom
-- Puts tasks whose time has come at the tail of their streams.
-- KEYS 1 prefix of the shard
-- ARGV 1 limit  2 how far ahead of now to look, ms (0, except in tests)
-- Returns {number fired, ms until the next one ('' when there is none)}
-- Called by timers.Timers.fire
local now = clock()
local due = TAG .. 'due'
local horizon = now + tonumber(ARGV[2])
local members = redis.call('ZRANGEBYSCORE', due, '-inf', text(horizon), 'LIMIT', 0, ARGV[1])
local fired = 0
for _, member in ipairs(members) do
  local run, path = string.match(member, '^run (%S+) (%S+)$')
  if run then
    local told = tell(run, path, '{"what":"fired","of":"' .. path .. '","at":"' .. iso(now) .. '"}', now)
    if told == 'woken' or told == 'told' then fired = fired + 1 end
  end
  local id = string.match(member, '^task:(.+)$')
  local r = id and redis.pcall('HGETALL', TAG .. 'task:' .. id)
  if r and not r.err then
    r = fields(r)
    if r.state == 'delayed' then
      redis.call('HDEL', TAG .. 'task:' .. id, 'due')
      if put(id, r, now) then fired = fired + 1 end
    end
  end
  redis.call('ZREM', due, member)
end
local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {fired, head[2] and text(math.max(0, tonumber(head[2]) - now)) or ''}
