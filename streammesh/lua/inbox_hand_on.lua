#!lua flags=allow-oom
-- What waits for an agent that has no room: says which tasks in its inbox have not begun and may go to others, or hands some on.
-- Only tasks whose addressee was chosen (by a name, a strategy, a refusal) move; what was sent to this very agent stays.
-- KEYS 1 prefix of the shard  2 inbox of the agent
-- ARGV 1 agent  2 ms that a task must have waited  3 entries to be looked at, at most  4.. three for each task that is to move: entry,
--      id, agent that shall have it ('' for the queue of its capability)
-- Returns without moves: {entry, id, capability, who refused it so far} of each that may move; with moves: how many moved. One
-- that has begun meanwhile, or is not there any more, stays as it is.
-- Called by overflow.Overflow
local me, now = ARGV[1], clock()
local function waits(id, entry)
  local r = redis.pcall('HMGET', TAG .. 'task:' .. id, 'state', 'entry', 'to', 'chosen')
  return not r.err and r[1] == 'queued' and r[2] == entry and r[3] == me and r[4]
end

if #ARGV < 4 then
  local out = {}
  local got = redis.pcall('XRANGE', KEYS[2], '-', text(now - tonumber(ARGV[2])), 'COUNT', ARGV[3])
  for _, e in ipairs(got.err and {} or got) do
    local id = #e[2] <= WIDEST and fields(e[2]).id
    if id and waits(id, e[1]) then
      local r = redis.call('HMGET', TAG .. 'task:' .. id, 'capability', 'refused')
      out[#out + 1] = {e[1], id, r[1], r[2] or ''}
    end
  end
  return out
end

local done = {}
for i = 4, #ARGV, 3 do
  local entry, id, to = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if waits(id, entry) and (to == '' or redis.call('EXISTS', TAG .. 'inbox:' .. to) == 1) then
    hand_on(id, fields(redis.call('HGETALL', TAG .. 'task:' .. id)), me, to, me .. ' has no room', now)
    done[#done + 1] = entry
  end
end
away(KEYS[2], done)
return #done
