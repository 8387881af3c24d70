#!lua flags=allow-oom
-- Takes one ballot, and closes the vote if that decides it.
-- With prelude_vote
-- KEYS 1 prefix of the shard of the vote
-- ARGV 1 vote  2 agent  3 round ('': the present one)  4 ballot (words, see prelude_vote)  5 what the voter said, as JSON
-- Returns {'ok' | 'invalid' (kept, and does not count) | 'duplicate' | 'foreign' (not in the electorate) | 'closed' | 'missing',
--      the state of the vote, ms until it has to be looked at again}
-- Safe to repeat: the same ballot again is 'ok'.
-- Called by votes.Votes.cast
return cast(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], clock())
