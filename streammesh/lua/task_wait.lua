#!lua flags=allow-oom
-- Tells what became of tasks, or puts the client on the list of those who will be told.
-- KEYS 1 prefix of the shard
-- ARGV 1 client  2.. ids
-- Returns three for each: state ('missing' without a record that can be read), result, error
-- Called by results.Results._asking
local out = {}
local open_states = {queued = true, delayed = true, running = true, parked = true, paused = true, stuck = true,
  open = true, deciding = true, awarded = true, working = true}
for n = 2, #ARGV do
  local key = key_of(ARGV[n])
  local r = redis.pcall('HMGET', key, 'state', 'result', 'error', 'waiters')
  if open_states[r[1]] then
    if not string.find(' ' .. (r[4] or '') .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
      redis.call('HSET', key, 'waiters', r[4] and r[4] .. ' ' .. ARGV[1] or ARGV[1])
    end
  end
  out[#out + 1] = r[1] or 'missing'
  out[#out + 1] = r[2] or ''
  out[#out + 1] = r[3] or ''
end
return out
