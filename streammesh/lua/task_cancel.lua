#!lua flags=allow-oom
-- Cancels tasks: queued and delayed ones at once, running ones by a flag that their agent obeys.
-- KEYS 1 prefix of the shard
-- ARGV 1 retention ms  2 who asks  3.. ids
-- Returns one line for each: 'ok' | 'running <agent>' | 'closed <state>' | 'missing'
-- Called by tasks.Tasks.cancel
local now = clock()
local words = {}
for n = 3, #ARGV do words[#words + 1] = cancel(ARGV[n], ARGV[2], ARGV[1], now) end
return words
