-- Put after the prelude before every script that says `With prelude_run`: the life of a run.

-- Starts the run `id`; records and pairs are places in ARGV (count 0: none), the records get the time. Known ids by `policy`.
local finish_run
local function start(id, workflow, version, input, policy, records_at, records, pairs_at, now)
  local key = TAG .. 'run:' .. id
  local state = redis.call('HGET', key, 'state')
  local final = state == 'succeeded' or state == 'failed' or state == 'cancelled'
  local generation
  if state then
    if policy == 'fail' then return 'conflict ' .. state end
    if policy ~= 'replace' then return 'attached ' .. state end
    if not final then
      local old = redis.call('HMGET', key, 'capability', 'version', 'entry')
      local stream = runs_of(old[1], old[2])
      redis.call('XACK', stream, 'agents', old[3])
      redis.call('XDEL', stream, old[3])
      finish_run(id, 'cancelled', 'replaced by a new start', '1', now)
    end
    local kept = redis.call('HMGET', key, 'attempt', 'generation')
    redis.call('DEL', key, key .. ':journal', key .. ':large')
    -- The fence only grows, also across a replacement; so does the generation, or ids of tasks would come again.
    if kept[1] then redis.call('HSET', key, 'attempt', kept[1]) end
    generation = text((tonumber(kept[2]) or 0) + 1)
    redis.call('HSET', key, 'generation', generation)
  end
  local at = iso(now)
  redis.call('HSET', key, 'state', 'queued', 'capability', workflow, 'version', version, 'started_at', at)
  note(key, '{"what":"start","workflow":"' .. workflow .. '","version":' .. version .. ',"input":' ..
    input .. (generation and ',"generation":' .. generation or '') .. ',"at":"' .. at .. '"}')
  for j = records_at, records_at + records - 1 do
    note(key, string.sub(ARGV[j], 1, -2) .. ',"at":"' .. at .. '"}')
  end
  if pairs_at > 0 then
    for j = pairs_at + 1, pairs_at + 2 * tonumber(ARGV[pairs_at]), 2 do redis.call('HSET', key, ARGV[j], ARGV[j + 1]) end
  end
  wake(id, workflow, version, now)
  return 'ok'
end

-- Tells a parent what became of its child, if it has.
local function report(id, now)
  local r = redis.call('HMGET', TAG .. 'run:' .. id, 'state', 'parent', 'path', 'result', 'error')
  if not r[2] then return end
  local final = r[1] == 'succeeded' or r[1] == 'failed' or r[1] == 'cancelled'
  for path in string.gmatch(final and r[3] or '', '%S+') do
    local open = redis.call('HGET', TAG .. 'run:' .. r[2], 'open ' .. path)
    if open and string.sub(open, 1, #id + 7) == 'child ' .. id .. ' ' then
      tell(r[2], path, outcome(path, r[1], r[1] == 'succeeded' and (r[4] or 'null') or r[5] or '', iso(now)), now)
    end
  end
end

-- Takes back what an open command had set in motion.
local function release_command(id, path, target, now)
  local kind, rest = string.match(target, '^(%a+) ?(.*)$')
  if kind == 'timer' then
    redis.call('ZREM', TAG .. 'due', 'run ' .. id .. ' ' .. path)
  elseif kind == 'task' then
    cancel(rest, 'its run', '3600000', now)
  elseif kind == 'auction' then
    cancel_auction(rest, 'its run', now)
  elseif kind == 'vote' then
    -- Whoever comes to it next closes it: no other outcome is possible from here on.
    if redis.call('HGET', TAG .. 'vote:' .. rest, 'state') == 'open' then
      redis.call('HSET', TAG .. 'vote:' .. rest, 'cancel', 'its run')
      redis.call('ZADD', TAG .. 'due', text(now), 'vote ' .. rest)
    end
  elseif kind == 'child' then
    local child, close = string.match(rest, '^(%S+) ?(%S*)$')
    -- Another command of the same run may wait for it as well: it goes on until nobody does.
    local wanted = redis.call('HMGET', TAG .. 'run:' .. child, 'parent', 'path')
    for other in string.gmatch(wanted[1] == id and wanted[2] or '', '%S+') do
      local open = other ~= path and redis.call('HGET', TAG .. 'run:' .. id, 'open ' .. other)
      if open and string.sub(open, 1, #child + 7) == 'child ' .. child .. ' ' then return end
    end
    if close == 'terminate' then
      local r = redis.call('HMGET', TAG .. 'run:' .. child, 'state', 'capability', 'version', 'entry')
      if r[1] and r[1] ~= 'succeeded' and r[1] ~= 'failed' and r[1] ~= 'cancelled' then
        redis.call('XACK', runs_of(r[2], r[3]), 'agents', r[4])
        redis.call('XDEL', runs_of(r[2], r[3]), r[4])
        finish_run(child, 'cancelled', 'terminated with its parent', '604800000', now)
      end
    elseif close ~= 'abandon' then
      tell(child, '', '{"what":"cancel","by":"its parent","at":"' .. iso(now) .. '"}', now)
    end
  end
end

-- Takes back everything that the run `id`, with the head `r`, had set in motion.
local function release_all(id, r, now)
  for name, target in pairs(r) do
    local path = string.match(name, '^open (.+)$')
    if path then
      redis.call('HDEL', TAG .. 'run:' .. id, name)
      release_command(id, path, target, now)
    end
  end
end

-- Ends the run `id`: outcome, last journal record, what is still open, parent, waiters, retention.
finish_run = function(id, state, value, keep, now)
  local key = TAG .. 'run:' .. id
  local r = fields(redis.call('HGETALL', key))
  local at = iso(now)
  redis.call('HSET', key, 'state', state, state == 'succeeded' and 'result' or 'error', value, 'finished_at', at)
  note(key, '{"what":"end","state":"' .. state .. '",' ..
    (state == 'succeeded' and '"result":' .. value or '"error":' .. cjson.encode(value)) .. ',"at":"' .. at .. '"}')
  release_all(id, r, now)
  report(id, now)
  answer('run ' .. id, {waiters = r.waiters}, state, value, now)
  event('run.' .. state, 'run', id, 'workflow', r.capability, 'at', at)
  redis.call('PEXPIRE', key, keep)
  redis.call('PEXPIRE', key .. ':journal', keep)
  redis.call('PEXPIRE', key .. ':large', keep)
end
