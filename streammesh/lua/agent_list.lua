#!lua flags=no-writes
-- Says who is alive, with what others choose by. Changes nothing.
-- KEYS 1 prefix of shard 0
-- ARGV 1 first of those wanted, counted from 0 in the order of their beats, oldest first  2 last of them (-1 for all)
-- Returns {ms now, the newest entry of the members feed ('0-0' without one), then {id, ms of its last beat, name, epoch,
--          capabilities, types, state, slots, busy, lease, skills} for each}
-- Called by peers.Roster.look
local newest = redis.call('XREVRANGE', TAG .. 'members', '+', '-', 'COUNT', 1)
local out = {text(clock()), newest[1] and newest[1][1] or '0-0'}
local scored = redis.call('ZRANGE', TAG .. 'agents', ARGV[1], ARGV[2], 'WITHSCORES')
for i = 1, #scored, 2 do
  local card = redis.call('HMGET', TAG .. 'agent:' .. scored[i], 'name', 'epoch', 'capabilities', 'types', 'state', 'slots', 'busy',
    'lease', 'skills')
  if card[1] then
    local row = {scored[i], text(tonumber(scored[i + 1]))}
    for j = 1, 9 do row[j + 2] = card[j] or '' end
    out[#out + 1] = row
  end
end
return out
