#!lua
-- Opens an auction and calls for bids.
-- With prelude_auction
-- KEYS 1 prefix of the shard
-- ARGV 1 id  2 number of terms, then the terms (name, value): capability, payload (JSON), window and confirm (ms), weights
--      (JSON: term -> weight), fallback (queue | none), and where wanted min_score, deadline (ms from now), scorer (a client
--      that scores), waiters, correlation, causation; then the ids of the bidders
-- Returns 'ok' | 'duplicate <state>' | 'conflict <state>' (known id, other capability or payload; nothing changed)
-- Called by auctions.Auctions.open
local terms = {}
local first = 3 + 2 * tonumber(ARGV[2])
for i = 3, first - 1, 2 do terms[ARGV[i]] = ARGV[i + 1] end
return open_auction(ARGV[1], terms, {unpack(ARGV, first)}, clock())
