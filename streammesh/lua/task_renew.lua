#!lua flags=allow-oom
-- Renews the lease of everything an agent holds, and hands back what is pending with it though it does not hold it: an
-- entry whose delivery it never saw (a lost reply).
-- KEYS 1 prefix of the shard  2.. streams that the agent reads
-- ARGV 1 agent  2 idle ms from which an entry that is not renewed counts as a stray
--      3 number of held ones, then for each: index into KEYS, entry, id ('' for a message), attempt
--      then for each stream from KEYS 2 on: the first word of its raw ids
-- Returns {lost ones, each as '<id> <attempt>', ids to cancel, number of strays handed back}
-- Called by pulse.Pulse._renew
local me = ARGV[1]
local now = clock()
local lost, cancel, strays = {}, {}, 0
local held, ours = {}, {}
local raw = 4 + 4 * tonumber(ARGV[3]) - 2
for n = 1, tonumber(ARGV[3]) do
  local i = 4 + (n - 1) * 4
  local s, entry, id = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  ours[s .. ' ' .. entry] = true
  local mine
  if id == '' then
    local p = redis.pcall('XPENDING', KEYS[s], 'agents', entry, entry, 1)
    mine = not p.err and p[1] and p[1][2] == me
  else
    local r = redis.pcall('HMGET', key_of(id), 'state', 'agent', 'attempt', 'cancel')
    mine = r[1] == 'running' and r[2] == me and r[3] == ARGV[i + 3]
    if mine and r[4] then cancel[#cancel + 1] = id end
  end
  if mine then
    held[s] = held[s] or {}
    table.insert(held[s], entry)
  elseif id ~= '' then
    lost[#lost + 1] = id .. ' ' .. ARGV[i + 3]
  end
end
for s, entries in pairs(held) do
  for from = 1, #entries, 500 do
    local args = {}
    for i = from, math.min(from + 499, #entries) do args[#args + 1] = entries[i] end
    args[#args + 1] = 'JUSTID'
    -- A stream that went away has nothing to renew; the records say who owns what.
    redis.pcall('XCLAIM', KEYS[s], 'agents', me, 0, unpack(args))
  end
end
-- A stray that another agent runs (its group was made anew) is that one's: its next renewal takes the entry back. Only when
-- that did not happen for ten leases there is nobody left who could.
local function hand_back(s, entry, idle)
  local got = redis.call('XRANGE', KEYS[s], entry, entry)
  local flat = got[1] and got[1][2]
  if flat then
    local f = fields(flat)
    local word = ARGV[raw + s]
    local run = string.sub(word, 1, 4) == 'run '
    local id = identity(f, entry, run and string.sub(word, 5) or word)
    local key = TAG .. (run and 'run:' or 'task:') .. id
    local r = f.type and {} or redis.pcall('HMGET', key, 'state', 'entry', 'agent')
    if r[1] == 'running' and r[2] == entry and r[3] ~= me and idle < 20 * tonumber(ARGV[2]) then return end
    if r.err or not r[1] then
      -- A claim will say what it is.
      if #flat > WIDEST then
        letter('inbox', id, f.payload, 'invalid_payload', 'the entry has ' .. #flat / 2 .. ' fields', nil, nil, iso(now))
      else
        redis.call('XADD', KEYS[s], '*', unpack(flat))
      end
    elseif r[2] == entry and (r[1] == 'queued' or r[1] == 'running') then
      local head = fields(redis.call('HGETALL', key))
      if run then wake(id, head.capability, head.version, now) else put(id, head, now) end
    end
  end
  away(KEYS[s], {entry})
  strays = strays + 1
end

for s = 2, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[s], 'agents', 'IDLE', ARGV[2], '-', '+', 100, me)
  for _, p in ipairs(pending.err and {} or pending) do
    if not ours[s .. ' ' .. p[1]] then hand_back(s, p[1], p[3]) end
  end
end
if strays > 0 then event('task.strays_handed_back', 'agent', me, 'count', strays, 'at', iso(now)) end
return {lost, cancel, strays}
