-- Put before the scripts that write the members feed, after prelude.lua.

-- What of a card travels in the feed, so that whoever follows it need not read the card.
local TOLD = {name = true, epoch = true, capabilities = true, types = true, state = true, slots = true, lease = true, skills = true}

-- Takes the agent `id` out of the registry before its lease has ended: its work may move at once.
local function take_out(id, reason, now)
  local card, at = TAG .. 'agent:' .. id, iso(now)
  local left = math.max(0, redis.call('PTTL', card))
  redis.call('ZREM', TAG .. 'agents', id)
  local had = {}
  for _, capability in ipairs(redis.call('SMEMBERS', TAG .. 'caps')) do
    if redis.call('SREM', TAG .. 'cap:' .. capability .. ':agents', id) == 1 then had[#had + 1] = capability end
  end
  redis.call('DEL', card)
  -- When its lease would have ended anyway, its entries are idle for long enough.
  redis.call('ZADD', TAG .. 'vanished', text(now + left), id)
  redis.call('XADD', TAG .. 'control', 'MAXLEN', '~', 1000, '*', 'type', 'vanished', 'agent', id, 'at', at)
  redis.call('XADD', TAG .. 'members', 'MAXLEN', '~', 10000, '*', 'type', 'died', 'agent', id, 'reason', reason,
    'capabilities', table.concat(had, ' '), 'at', at)
end

-- One entry of the feed: `kind` is what happened to the agent `id`, `card` a flat list of what it says of itself.
local function member(kind, id, card, ...)
  local args = {'type', kind, 'agent', id, ...}
  for i = 1, #card, 2 do
    if TOLD[card[i]] then
      args[#args + 1] = card[i]
      args[#args + 1] = card[i + 1]
    end
  end
  redis.call('XADD', TAG .. 'members', 'MAXLEN', '~', 10000, '*', unpack(args))
end
