-- Put before the scripts that write the members feed, after prelude.lua.

-- What of a card travels in the feed, so that whoever follows it need not read the card.
local TOLD = {name = true, epoch = true, capabilities = true, types = true, state = true, slots = true, lease = true, skills = true}

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
