#!lua flags=allow-oom
-- Cancels an auction: at once while nobody works on it; then its task is asked to stop.
-- KEYS 1 prefix of the shard
-- ARGV 1 id  2 who asks
-- Returns 'ok' | 'running <agent>' (it was asked to stop) | 'closed <state>' | 'missing'
-- Called by auctions.Auctions.cancel
return cancel_auction(ARGV[1], ARGV[2], clock())
