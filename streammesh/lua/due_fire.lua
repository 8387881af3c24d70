#!lua flags=allow-oom
-- Puts tasks whose time has come at the tail of their streams, tells runs of their timers, and names what else is due.
-- KEYS 1 prefix of the shard
-- ARGV 1 limit  2 how far ahead of now to look, ms (0, except in tests)
--        (schedules wait for their own time: ahead of it there would always be one more)
-- Returns {number fired, ms until the next one ('' when there is none), members that are for the caller to act on …}. Those
--      stay, and are named again two seconds later: whoever acts on one takes it away, in its own script.
-- Called by timers.Timers.fire
local now = clock()
local OTHERS = {schedule = true, vote = true, auction = true}
local due = TAG .. 'due'
local horizon = now + tonumber(ARGV[2])
local members = redis.call('ZRANGEBYSCORE', due, '-inf', text(horizon), 'LIMIT', 0, ARGV[1])
local fired, others = 0, {}
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
  local kind = string.match(member, '^(%a+) %S+$') or ''
  local early = kind == 'schedule' and horizon > now and tonumber(redis.call('ZSCORE', due, member)) > now
  if OTHERS[kind] and not early then
    redis.call('ZADD', due, text(horizon + 2000), member)
    others[#others + 1] = member
  elseif not early then
    redis.call('ZREM', due, member)
  end
end
local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {fired, head[2] and text(math.max(0, tonumber(head[2]) - now)) or '', unpack(others)}
