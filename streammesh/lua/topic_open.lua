#!lua flags=allow-oom
-- Begins a subscription, or goes on with it: makes the group where it is missing, or says where a reader is to begin. A reader
-- counts as a subscriber for a while, a group always.
-- KEYS 1 prefix of shard 0
-- ARGV 1 topic  2 group ('' for a reader by cursor)  3 who  4 'tail' | 'head' | an entry's id | '' (only be counted)
--      5 ms for which a reader counts
-- Returns {'ok', cursor, number of the last message before it}, or {'gap', cursor, first entry kept} where messages were trimmed
--      between the cursor and what is kept
-- Called by topics.Topics.open
local now = clock()
local stream = TAG .. 'topic:' .. ARGV[1]
local group, start = ARGV[2], ARGV[4]
local count = redis.call('HGET', TAG .. 'topics', ARGV[1]) or '0'
local cursor, before, word = start, '0', 'ok'
if start == 'tail' then
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  cursor, before = last[1] and last[1][1] or '0-0', count
elseif start ~= '' then
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local kept = first and tonumber(fields(first[2]).number)
  if start == 'head' then
    cursor, before = '0-0', kept and text(kept - 1) or count
  else
    local at = redis.call('XREVRANGE', stream, start, '-', 'COUNT', 1)[1]
    if at then
      before = fields(at[2]).number or '0'
    elseif kept and kept > 1 then
      word, before = 'gap', first[1]
    elseif not first then
      before = count
    end
  end
end
if group == '' then
  redis.call('ZADD', stream .. ':readers', text(now + ARGV[5]), ARGV[3])
  redis.call('PEXPIRE', stream .. ':readers', 2 * ARGV[5])
elseif start ~= '' then
  local made = redis.pcall('XGROUP', 'CREATE', stream, group, cursor, 'MKSTREAM')
  -- One that is there already goes on where it is, wherever this member would have begun.
  if made.err then word = 'ok' else redis.call('HSET', TAG .. 'topics', ARGV[1] .. ' ' .. group, word == 'ok' and before or '0') end
end
return {word, cursor, before}
