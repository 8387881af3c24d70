#!lua
-- Publishes a message: into the mail of a live agent, to everybody, or on a topic. What it belongs to is held to its bounds.
-- KEYS 1 prefix of shard 0
-- ARGV 1 where: 'agent <id>' | 'broadcast' | 'topic <name>'  2 how many entries a broadcast or a topic keeps, about; how many may wait for the agent (0: any number)
--      3 bounds ('hops count fan_out', '' for none)
--      4 'forward' (never to an agent it has been with) | 'require' (only where somebody subscribes to the topic) | ''  5.. fields and values of the entry (`deadline` may be '+ms', and then an upper limit)
-- Returns 'ok' | 'missing' (no live agent of that id) | 'full <length of its mail> <ms that the oldest of it has waited>' | 'nobody' (subscribes) | 'refused <guard> <limit>' (hops deadline messages fan_out cycle)
-- Called by messages.Messages.publish
local now = clock()
local at = iso(now)
local args = {}
for i = 5, #ARGV, 2 do
  args[#args + 1] = ARGV[i]
  args[#args + 1] = ARGV[i] == 'deadline' and earliest(ARGV[i + 1], now) or ARGV[i + 1]
end
local f = fields(args)
-- A call that is repeated because its reply was lost must not make a second message.
local sent = f.id and TAG .. 'sent:' .. f.id
if sent and redis.call('EXISTS', sent) == 1 then return 'ok' end
local where, name = string.match(ARGV[1], '^(%a+) ?(.*)$')
local stream = TAG .. (where == 'agent' and 'mail:' .. name or where == 'topic' and 'topic:' .. name or 'broadcast')
if where == 'agent' and redis.call('EXISTS', TAG .. 'agent:' .. name) == 0 then return 'missing' end
if ARGV[4] == 'require' and redis.call('ZCOUNT', stream .. ':readers', '(' .. text(now), '+inf') == 0 and
  (redis.call('EXISTS', stream) == 0 or #redis.call('XINFO', 'GROUPS', stream) == 0) then return 'nobody' end
if where == 'agent' and ARGV[2] ~= '0' and usable(stream) == 'stream' then
  local length = redis.call('XLEN', stream)
  if length >= tonumber(ARGV[2]) then
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
    return 'full ' .. length .. ' ' .. text(math.max(0, now - tonumber(string.match(oldest[1][1], '^%d+'))))
  end
end
f.bounds = ARGV[3]
local what = 'message ' .. (f.type or '')
if ARGV[4] == 'forward' and string.find(' ' .. (f.via or '') .. ' ', ' ' .. name .. ' ', 1, true) then
  return refuse('cycle', name, f, what, now)
end
local refused = bounded(f, what, now)
if refused then return refused end
args[#args + 1] = 'at'
args[#args + 1] = at
if where == 'agent' then
  if redis.call('EXISTS', stream) == 0 then make(stream, nil, name, now) end
  redis.call('XADD', stream, '*', unpack(args))
else
  -- By these numbers whoever fell behind what is kept knows how much was missed.
  args[#args + 1] = 'number'
  args[#args + 1] = text(redis.call('HINCRBY', TAG .. 'topics', where == 'topic' and name or '*', 1))
  redis.call('XADD', stream, 'MAXLEN', '~', ARGV[2], '*', unpack(args))
end
if sent then redis.call('SET', sent, '1', 'PX', 60000) end
if f.correlation then
  trail(f.correlation, {what = 'message', id = f.id, name = f.type, to = ARGV[1], causation = f.causation, hops = f.hops,
    by = f.source, at = at, request = f.reply_to and '1' or nil})
end
return 'ok'
