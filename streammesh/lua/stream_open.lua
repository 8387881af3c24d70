#!lua flags=allow-oom
-- Makes sure that an agent's streams and their groups exist.
-- KEYS 1 prefix of the shard  2.. streams
-- ARGV for each stream: its capability, '' for the agent's inbox and mail, or 'run <workflow>'; then the agent
-- Returns 'ok'
-- Called by registry.Registry.open_streams
for s = 2, #KEYS do
  local capability = ARGV[s - 1]
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[s], 'agents', '0', 'MKSTREAM')
  if made.err and not string.find(tostring(made.err), 'BUSYGROUP') then
    -- Not a stream: told, and passed over, so that the agent can serve all the others.
    event('stream.unusable', 'stream', KEYS[s], 'msg', tostring(made.err), 'at', iso(clock()))
  end
  if capability == '' then
    redis.call('ZADD', TAG .. 'inboxes', 'NX', text(clock()), ARGV[#ARGV])
  elseif string.sub(capability, 1, 4) == 'run ' then
    redis.call('SADD', TAG .. 'workflows', string.sub(capability, 5))
  else
    redis.call('SADD', TAG .. 'caps', capability)
  end
end
return 'ok'
