#!lua
-- Opens a vote, or a collection of answers, and asks its voters, in one.
-- With prelude_vote
-- KEYS 1 prefix of the shard of its id
-- ARGV 1 id  2.. fields of its hash and their values (motions.Motion.fields; `lasts` ms, `electorate` 'agent weight agent weight …')
-- Returns {'ok' | 'known' (there is this vote: nothing was changed but its list of waiters) | 'conflict' (another vote has that id),
--      its state, its result as JSON ('' while it is open)}
-- Called by votes.Votes.open
local v = {}
for i = 2, #ARGV, 2 do v[ARGV[i]] = ARGV[i + 1] end
return open_vote(ARGV[1], v, clock())
