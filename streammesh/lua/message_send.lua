#!lua
-- Puts a message into the mail of a live agent.
-- KEYS 1 prefix of shard 0
-- ARGV 1 agent  2.. fields and values of the entry (`deadline` may be '+ms')
-- Returns 'ok' | 'missing' (no live agent of that id)
-- Called by messages.Messages.send
local now = clock()
-- A call that is repeated because its reply was lost must not make a second message.
for i = 2, #ARGV, 2 do
  if ARGV[i] == 'id' and redis.call('EXISTS', TAG .. 'sent:' .. ARGV[i + 1]) == 1 then return 'ok' end
end
if redis.call('EXISTS', TAG .. 'agent:' .. ARGV[1]) == 0 then return 'missing' end
local stream = TAG .. 'mail:' .. ARGV[1]
if redis.call('EXISTS', stream) == 0 then make(stream, nil, ARGV[1], now) end
local args = {}
for i = 2, #ARGV do args[#args + 1] = ARGV[i] end
for i = 1, #args, 2 do
  if args[i] == 'deadline' and string.sub(args[i + 1], 1, 1) == '+' then
    args[i + 1] = text(now + tonumber(string.sub(args[i + 1], 2)))
  end
end
args[#args + 1] = 'at'
args[#args + 1] = iso(now)
redis.call('XADD', stream, '*', unpack(args))
for i = 2, #ARGV, 2 do
  if ARGV[i] == 'id' then redis.call('SET', TAG .. 'sent:' .. ARGV[i + 1], '1', 'PX', 60000) end
end
return 'ok'
