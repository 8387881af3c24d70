#!lua flags=allow-oom
-- Closes a vote whose deadline has come, or that is cancelled; any agent or client may.
-- With prelude_vote
-- KEYS 1 prefix of the shard of the vote
-- ARGV 1 vote  2 by  3 '1' to cancel it
-- Returns {state ('open': its time has not come; 'missing'), its result as JSON ('' while it is open), ms until its time}
-- Safe to repeat: closing twice returns the first outcome.
-- Called by votes.Votes.close
local id, now = ARGV[1], clock()
local key = vote_key(id)
local v = fields(redis.call('HGETALL', key))
if v.state ~= 'open' then
  redis.call('ZREM', TAG .. 'due', 'vote ' .. id)
  return {v.state or 'missing', v.result or '', 0}
end
if ARGV[3] == '1' and not v.cancel then
  v.cancel = ARGV[2]
  redis.call('HSET', key, 'cancel', v.cancel)
end
local state, left = judge(id, v, false, ARGV[2], now)
return {state, redis.call('HGET', key, 'result') or '', left}
