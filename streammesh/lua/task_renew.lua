#!lua flags=allow-oom
-- Renews the lease of everything an agent holds, and hands back what is pending with it though it does not hold it: an
-- entry whose delivery it never saw (a lost reply).
-- KEYS 1 prefix of the shard  2.. streams that the agent reads
-- ARGV 1 agent  2 idle ms from which an entry that is not renewed counts as a stray
--      3 number of held ones, then for each: index into KEYS, entry, id ('' for a message), attempt
--      then for each stream from KEYS 2 on: the first word of its raw ids
-- Returns {ids lost, ids to cancel, number of strays handed back}
-- Called by pulse.Pulse.beat
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
    local p = redis.call('XPENDING', KEYS[s], 'agents', entry, entry, 1)
    mine = p[1] and p[1][2] == me
  else
    local r = redis.call('HMGET', TAG .. 'task:' .. id, 'state', 'agent', 'attempt', 'cancel')
    mine = r[1] == 'running' and r[2] == me and r[3] == ARGV[i + 3]
    if mine and r[4] then cancel[#cancel + 1] = id end
  end
  if mine then
    held[s] = held[s] or {}
    table.insert(held[s], entry)
  elseif id ~= '' then
    lost[#lost + 1] = id
  end
end
for s, entries in pairs(held) do
  for from = 1, #entries, 500 do
    local args = {}
    for i = from, math.min(from + 499, #entries) do args[#args + 1] = entries[i] end
    args[#args + 1] = 'JUSTID'
    redis.call('XCLAIM', KEYS[s], 'agents', me, 0, unpack(args))
  end
end
for s = 2, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[s], 'agents', 'IDLE', ARGV[2], '-', '+', 100, me)
  for _, p in ipairs(pending.err and {} or pending) do
    if not ours[s .. ' ' .. p[1]] then
      local got = redis.call('XRANGE', KEYS[s], p[1], p[1])
      if got[1] then
        local flat = got[1][2]
        local f = fields(flat)
        local id = f.id or ARGV[raw + s] .. '-' .. p[1]
        local key = not f.type and TAG .. 'task:' .. id
        local r = key and redis.call('HMGET', key, 'state', 'entry', 'agent') or {}
        if not r[1] then
          redis.call('XADD', KEYS[s], '*', unpack(flat))
        elseif r[2] == p[1] and (r[1] == 'queued' or (r[1] == 'running' and r[3] == me)) then
          put(id, fields(redis.call('HGETALL', key)), now)
        end
      end
      redis.call('XACK', KEYS[s], 'agents', p[1])
      redis.call('XDEL', KEYS[s], p[1])
      strays = strays + 1
    end
  end
end
if strays > 0 then event('task.strays_handed_back', 'agent', me, 'count', strays, 'at', iso(now)) end
return {lost, cancel, strays}
