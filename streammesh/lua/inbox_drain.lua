#!lua flags=allow-oom
-- Clears the inbox of an agent that is gone: tasks go to the others who offer their capability, or to the dead letters;
-- requests are answered `died`; other messages become dead letters of `inbox`.
-- KEYS 1 prefix of the shard
-- ARGV 1 agent  2 limit  3 first word of the inbox's raw ids  4.. capabilities that live agents offer
-- Returns {'alive' | 'more' | 'ok', number moved, number buried}
-- Called by sweep.Sweep.drain
local agent = ARGV[1]
if redis.call('EXISTS', TAG .. 'agent:' .. agent) == 1 then return {'alive', 0, 0} end
local stream = TAG .. 'inbox:' .. agent
local now = clock()
local at = iso(now)
local offered = {}
for i = 4, #ARGV do offered[ARGV[i]] = true end
local moved, buried = 0, 0
local entries = redis.call('EXISTS', stream) == 1 and redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[2]) or {}
for _, e in ipairs(entries) do
  local f = fields(e[2])
  if f.type then
    if f.reply_to then answer(f.id or '', f.reply_to, 'died', agent .. ' died before it answered') end
    if not f.reply_to then
      redis.call('XADD', TAG .. 'dead:inbox', '*', 'id', f.id or e[1], 'payload', f.payload or '{}', 'reason', 'agent_died',
        'error', 'message ' .. f.type .. ' to ' .. agent .. ', which died', 'attempts', '0', 'agent', agent, 'at', at)
      redis.call('SADD', TAG .. 'caps', 'inbox')
      buried = buried + 1
    end
  else
    local id = f.id or ARGV[3] .. '-' .. e[1]
    local r = fields(redis.call('HGETALL', TAG .. 'task:' .. id))
    if (r.state == 'queued' or r.state == 'running') and r.entry == e[1] then
      if offered[r.capability] then
        redis.call('HDEL', TAG .. 'task:' .. id, 'to')
        if r.state == 'running' then redis.call('HINCRBY', TAG .. 'task:' .. id, 'deaths', 1) end
        r.to = nil
        put(id, r, now)
        moved = moved + 1
      else
        bury(id, r, 'agent_died', agent .. ' died, and no live agent offers ' .. r.capability, now)
        buried = buried + 1
      end
    elseif not r.state then
      redis.call('XADD', TAG .. 'dead:inbox', '*', 'id', id, 'payload', f.payload or '{}', 'reason', 'agent_died',
        'error', 'an entry without a record for ' .. agent .. ', which died', 'attempts', '0', 'agent', agent, 'at', at)
      redis.call('SADD', TAG .. 'caps', 'inbox')
      buried = buried + 1
    end
  end
  redis.pcall('XACK', stream, 'agents', e[1])
  redis.call('XDEL', stream, e[1])
end
if #entries >= tonumber(ARGV[2]) then return {'more', moved, buried} end
redis.call('DEL', stream)
redis.call('ZREM', TAG .. 'inboxes', agent)
return {'ok', moved, buried}
