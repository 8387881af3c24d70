#!lua flags=allow-oom
-- Gives a member of a group messages of a topic: first those that another one held for a lease without renewing, then new ones.
-- Renews what the member holds. A message that several members did not survive becomes a dead letter of `inbox`.
-- KEYS 1 prefix of shard 0
-- ARGV 1 topic  2 group  3 member  4 how many (0: only renew)  5 lease in ms  6 deliveries after which a message is given up
--      7.. entries that the member holds
-- Returns {held ones that are another's now, newest entry, number of messages that were trimmed unread, first entry kept,
--      items: {entry, delivery, fields and values}}
-- Called by topics.Topics.take
local now = clock()
local stream, counts = TAG .. 'topic:' .. ARGV[1], TAG .. 'topics'
local group, me, left, lease = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local read = ARGV[1] .. ' ' .. group
local lost, items, missed = {}, {}, 0
for i = 7, #ARGV do
  local p = redis.pcall('XPENDING', stream, group, ARGV[i], ARGV[i], 1)
  if not p.err and p[1] then
    if p[1][2] == me then redis.pcall('XCLAIM', stream, group, me, 0, ARGV[i], 'JUSTID') else lost[#lost + 1] = ARGV[i] end
  end
end
local pending = left > 0 and redis.pcall('XPENDING', stream, group, 'IDLE', lease, '-', '+', left) or {}
for _, p in ipairs(pending.err and {} or pending) do
  local got = redis.call('XRANGE', stream, p[1], p[1])[1]
  local f = got and fields(got[2])
  if not got then
    -- It fell behind the retention while somebody held it.
    redis.call('XACK', stream, group, p[1])
    missed = missed + 1
  elseif p[4] >= tonumber(ARGV[6]) then
    redis.call('XACK', stream, group, p[1])
    letter('inbox', f.id or p[1], f.payload, 'message_poison', 'message ' .. ARGV[1] .. ': ' .. p[4] .. ' members of group ' .. group ..
      ' did not finish it, the last one was ' .. p[2], text(p[4]), p[2], iso(now))
    event('topic.poison', 'topic', ARGV[1], 'group', group, 'message', f.id or p[1], 'correlation', f.correlation or '', 'at', iso(now))
  else
    local claimed = redis.call('XCLAIM', stream, group, me, lease, p[1])
    if claimed[1] and claimed[1][2] then
      items[#items + 1] = {p[1], p[4] + 1, got[2]}
      left = left - 1
    end
  end
end
if left > 0 then
  local got = redis.pcall('XREADGROUP', 'GROUP', group, me, 'COUNT', left, 'STREAMS', stream, '>')
  if type(got) == 'table' and got.err then
    -- The topic or its group went away: data was lost or deleted. Begin again at what is kept, and say so.
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    redis.call('HDEL', counts, read)
    event('stream.group_recreated', 'stream', stream, 'group', group, 'at', iso(now))
    got = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', left, 'STREAMS', stream, '>')
  end
  for _, e in ipairs(got and got[1] and got[1][2] or {}) do
    local number = tonumber(fields(e[2]).number)
    if number then
      local last = tonumber(redis.call('HGET', counts, read) or number - 1)
      if number > last + 1 then missed = missed + number - last - 1 end
      redis.call('HSET', counts, read, text(number))
    end
    items[#items + 1] = {e[1], 1, e[2]}
  end
  if #items == 0 then
    -- Members that died are forgotten once nothing is left with them, and long after they could have come back.
    for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
      local c = fields(one)
      if c.pending == 0 and c.idle > 20 * lease and c.name ~= me then redis.call('XGROUP', 'DELCONSUMER', stream, group, c.name) end
    end
  end
end
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local first = missed > 0 and redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
return {lost, newest and newest[1] or '0-0', missed, first and first[1] or '', items}
