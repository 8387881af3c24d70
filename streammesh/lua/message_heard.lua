#!lua flags=allow-oom
-- Writes into the story of its flow that somebody heard a broadcast, and how that went. Called again, it is told again.
-- KEYS 1 prefix of shard 0
-- ARGV 1 flow  2 message  3 who  4 'replied' | 'failed'  5 why
-- Returns 'ok'
-- Called by messages.Messages.heard
trail(ARGV[1], {what = 'heard', id = ARGV[2], by = ARGV[3], state = ARGV[4], at = iso(clock()), error = ARGV[5] ~= '' and ARGV[5] or nil})
return 'ok'
