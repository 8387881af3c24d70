#!lua flags=allow-oom
-- Clears the inbox and the mail of an agent that is gone: tasks go to the others who offer their capability, or to the dead letters;
-- requests are answered `died`; votes wait for it no longer; other messages become dead letters of `inbox`.
-- With prelude_auction, prelude_vote
-- KEYS 1 prefix of the shard
-- ARGV 1 agent  2 limit  3 first word of the inbox's raw ids  4 deaths that make a task poison
--      5.. capabilities that live agents offer
-- Returns {'alive' | 'more' | 'ok', number moved, number buried}
-- Called by sweep.Sweep.drain
local agent = ARGV[1]
if redis.call('EXISTS', TAG .. 'agent:' .. agent) == 1 then return {'alive', 0, 0} end
local now = clock()
local at = iso(now)
local offered = {}
for i = 5, #ARGV do offered[ARGV[i]] = true end
local moved, buried, limit, seen = 0, 0, tonumber(ARGV[2]), 0

local function message(f, entry)
  if f.vote then return mourn(f.vote, agent, now) end
  local why = agent .. ' died before it answered'
  if f.correlation then
    trail(f.correlation, {what = 'heard', id = f.id or entry, by = agent, state = 'died', at = at})
  end
  -- The auction itself says what became of it.
  if string.sub(f.type or '', 1, 8) == 'auction.' then return end
  if f.reply_to then return answer(f.request or f.id or '', {waiters = f.reply_to}, 'died', why, now) end
  letter('inbox', f.id or entry, f.payload, 'message_undelivered', 'message ' .. (f.type or '') .. ' to ' .. agent .. ', which died', nil,
    agent, at)
  buried = buried + 1
end

local function task(f, entry, wide)
  local id = identity(f, entry, ARGV[3])
  local key = TAG .. 'task:' .. id
  local r = redis.pcall('HGETALL', key)
  local flaw = r.err and 'record_unusable' or (not r[1] and wide and 'invalid_payload')
  if flaw then
    letter(f.capability or 'inbox', id, f.payload, flaw, 'an entry for ' .. agent .. ', which died', nil, agent, at)
    buried = buried + 1
    return
  end
  if not r[1] then
    adopt(id, f, f.capability or 'inbox', entry, now)
    r = redis.call('HGETALL', key)
  end
  r = fields(r)
  if r.entry ~= entry or (r.state ~= 'queued' and r.state ~= 'running') then return end
  if not offered[r.capability] then
    bury(id, r, 'agent_died', agent .. ' died, and no live agent offers ' .. r.capability, now)
    buried = buried + 1
    return
  end
  if string.find(' ' .. (r.waiters or '') .. ' ', ' auction ', 1, true) and move_work(id, r, agent, now) then
    moved = moved + 1
    return
  end
  redis.call('HDEL', key, 'to', 'chosen')
  if r.state == 'running' and redis.call('HINCRBY', key, 'deaths', 1) >= tonumber(ARGV[4]) then
    bury(id, r, 'poison', 'its agent died ' .. ARGV[4] .. ' times while running it', now)
    -- As in task_claim: its own outcome must not look as if it had been recorded.
    redis.call('HDEL', key, 'agent')
    buried = buried + 1
    return
  end
  r.to = nil
  put(id, r, now)
  moved = moved + 1
end

for _, word in ipairs({'mail:', 'inbox:'}) do
  local stream = TAG .. word .. agent
  local kind = usable(stream)
  local entries = kind == 'stream' and redis.call('XRANGE', stream, '-', '+', 'COUNT', limit - seen) or {}
  local done = {}
  for _, e in ipairs(entries) do
    local f = fields(e[2])
    if f.type or word == 'mail:' then message(f, e[1]) else task(f, e[1], #e[2] > WIDEST) end
    done[#done + 1] = e[1]
  end
  away(stream, done)
  seen = seen + #entries
  if seen >= limit then return {'more', moved, buried} end
  if kind == 'stream' then redis.call('DEL', stream) end
end
redis.call('ZREM', TAG .. 'inboxes', agent)
return {'ok', moved, buried}
