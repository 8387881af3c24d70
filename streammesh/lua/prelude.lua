-- Put before every script when it is loaded. KEYS[1] is always a shard's prefix, such as `{mesh}:`; every key that a
-- script makes from it is in the same slot. Numbers that go out as text are written by `text`, because the interpreters
-- of the servers differ in how they print large ones.
local TAG = KEYS[1]

local function text(number) return string.format('%.0f', number) end

-- The server's clock in ms: the only clock of the mesh.
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- ms since 1970 as ISO-8601 UTC. Days to civil date after Howard Hinnant, "chrono-compatible low-level date algorithms".
local function iso(ms)
  local s = math.floor(ms / 1000)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local r = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(r / 3600), math.floor(r % 3600 / 60), r % 60, ms % 1000)
end

-- A flat list of fields and values as a table.
local function fields(flat)
  local t = {}
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

-- One line of the audit tail.
local function event(kind, ...)
  redis.call('XADD', TAG .. 'events', 'MAXLEN', '~', 10000, '*', 'type', kind, ...)
end

-- Whether `stream` can be added to: 'stream' when it is there, 'none' when it can be made, else nothing.
local function usable(stream)
  local kind = redis.call('TYPE', stream)
  kind = kind.ok or kind
  return (kind == 'stream' or kind == 'none') and kind
end

-- Makes `stream` with its group, from its first entry, and lists it: inbox or mail of `agent`, or a lane of `capability`.
local function make(stream, capability, agent, now)
  redis.call('XGROUP', 'CREATE', stream, 'agents', '0', 'MKSTREAM')
  if agent then
    redis.call('ZADD', TAG .. 'inboxes', text(now), agent)
  else
    redis.call('SADD', TAG .. 'caps', capability)
  end
end

-- Acknowledges and deletes entries, as many in one call as Lua can pass. Neither command can run out of memory, so what
-- fails here is a stream that became something else, and that must not undo what was settled.
local function away(stream, entries)
  for from = 1, #entries, 1000 do
    local some = {}
    for i = from, math.min(from + 999, #entries) do some[#some + 1] = entries[i] end
    redis.pcall('XACK', stream, 'agents', unpack(some))
    redis.pcall('XDEL', stream, unpack(some))
  end
end

-- The optional fields of an entry, in their order on the wire; anything else a record carries as `header.<name>`.
local WIRE = {'capability', 'deadline', 'run', 'step', 'correlation', 'causation', 'hops', 'via', 'traceparent', 'by', 'refused'}

-- The most words of an entry that somebody added by hand: fields and values.
local WIDEST = 2000

-- The id of the entry with the fields `f`: what it says, or one made of `word` and its place. Second: what is wrong with it.
local function identity(f, entry, word)
  local id = f.id
  if id and id ~= '' and #id <= 128 and not string.find(id, '[^%w_.:%-]') then return id end
  return word .. '-' .. entry, id and 'invalid_id' or nil
end

-- Makes the record of an entry that came by a bare XADD; its unknown fields become headers.
local function adopt(id, f, capability, entry, now)
  local key = TAG .. 'task:' .. id
  redis.call('HSET', key, 'state', 'queued', 'capability', capability, 'payload', f.payload or '{}', 'enqueued_at', f.at or iso(now),
    'entry', entry)
  local known = {id = true, payload = true, attempt = true, at = true, capability = true, type = true, reply_to = true}
  for _, name in ipairs(WIRE) do
    if f[name] and not known[name] then redis.call('HSET', key, name, f[name]) end
    known[name] = true
  end
  for name, value in pairs(f) do
    if not known[name] then redis.call('HSET', key, 'header.' .. name, value) end
  end
end

-- Writes a dead letter; returns its entry id, or '' where the key of the letters holds another type.
local function letter(capability, id, payload, reason, why, attempts, agent, at)
  redis.call('SADD', TAG .. 'caps', capability)
  local stream = TAG .. 'dead:' .. capability
  local place = redis.pcall('XADD', stream, '*', 'id', id, 'payload', payload or '{}', 'reason', reason,
    'error', why, 'attempts', attempts or '0', 'agent', agent or '', 'at', at)
  if type(place) ~= 'table' then return place end
  -- Not a stream: one letter that cannot be kept must not hold up all outcomes that travel with it. The record tells.
  event('stream.unusable', 'stream', stream, 'task', id, 'msg', place.err, 'at', at)
  return ''
end

-- The key of a record: ids of runs, auctions and votes are passed about as 'run <id>', 'auction <id>', 'vote <id>', all others are tasks.
local function key_of(id)
  if string.sub(id, 1, 4) == 'run ' then return TAG .. 'run:' .. string.sub(id, 5) end
  if string.sub(id, 1, 8) == 'auction ' then return TAG .. 'auction:' .. string.sub(id, 9) end
  if string.sub(id, 1, 5) == 'vote ' then return TAG .. 'vote:' .. string.sub(id, 6) end
  return TAG .. 'task:' .. id
end

-- The stream of a workflow, in the version that a run was started with.
local function runs_of(workflow, version)
  return TAG .. 'runs:' .. workflow .. ((version or '1') ~= '1' and '@' .. version or '')
end

-- Wakes the run `id`: its one wake-up entry is added, its head is queued.
local function wake(id, workflow, version, now)
  local stream = runs_of(workflow, version)
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, 'agents', '0', 'MKSTREAM')
    redis.call('SADD', TAG .. 'workflows', string.sub(stream, #TAG + 6))
  end
  local entry = redis.call('XADD', stream, '*', 'id', id, 'at', iso(now))
  redis.call('HSET', TAG .. 'run:' .. id, 'state', 'queued', 'entry', entry)
end

-- A record longer than this is kept beside the journal, which is for people too: there a short one says where and how long.
local LARGE = 16384

-- Appends a record to the journal of the run with its head at `key`; returns how many there are.
local function note(key, record)
  if #record > LARGE then
    local place = text(redis.call('LLEN', key .. ':journal'))
    redis.call('HSET', key .. ':large', place, record)
    -- What stands before the value: what it is, of which command, its name.
    local said = #record
    for _, name in ipairs({'result', 'payload', 'input', 'error'}) do
      local at = string.find(record, ',"' .. name .. '":', 1, true)
      if at and at < said then said = at end
    end
    record = string.sub(record, 1, math.min(said, 400) - 1) .. ',"large":' .. place .. ',"bytes":' .. text(#record) .. '}'
  end
  return redis.call('RPUSH', key .. ':journal', record)
end

-- Records of that journal, whole, from the place `from` to `to`.
local function notes(key, from, to)
  local found = redis.call('LRANGE', key .. ':journal', from, to)
  for i, record in ipairs(found) do
    local place = string.match(string.sub(record, -48), ',"large":(%d+),"bytes":%d+}$')
    if place then found[i] = redis.call('HGET', key .. ':large', place) or record end
  end
  return found
end

-- Writes into the journal of the run `id` that something happened, and sees to it that somebody reads it. `path` names the
-- open command that it answers ('' for signals and cancellations): a command that is not open has been answered before,
-- or is no longer wanted, and nothing changes. `target`: what has to be open there; after a run
-- began anew the path may be another command's.
local function tell(id, path, record, now, target)
  local key = TAG .. 'run:' .. id
  local r = redis.call('HMGET', key, 'state', 'capability', 'version', 'client')
  local state = r[1]
  if not state or state == 'succeeded' or state == 'failed' or state == 'cancelled' then return 'closed' end
  if target and redis.call('HGET', key, 'open ' .. path) ~= target then return 'duplicate' end
  if path ~= '' and redis.call('HDEL', key, 'open ' .. path) == 0 then return 'duplicate' end
  local count = note(key, record)
  if state == 'parked' then
    wake(id, r[2], r[3], now)
    return 'woken'
  end
  if state == 'running' and r[4] then
    -- A nudge for the agent that lingers on it. It may be lost: parking is refused while something is unread.
    local stream = TAG .. 'replies:' .. r[4]
    redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', 'run ' .. id, 'state', 'nudge ' .. count, 'value', record)
    redis.call('PEXPIRE', stream, 600000)
  end
  return 'told'
end

-- What a run's journal says of a command's outcome; `value` is JSON for 'succeeded' and text else.
local function outcome(path, state, value, at)
  if state == 'succeeded' then
    return '{"what":"done","of":"' .. path .. '","result":' .. value .. ',"at":"' .. at .. '"}'
  end
  return '{"what":"failed","of":"' .. path .. '","state":"' .. state .. '","error":' .. cjson.encode(value) .. ',"at":"' .. at .. '"}'
end

-- Tells the run that a task works for, and every waiting client, what became of it. `r` has run, step and waiters. For
-- clients it is a hint: the record is the truth. A task that was auctioned has the waiter 'auction'.
local end_auction
local function answer(id, r, state, value, now)
  if r.run then tell(r.run, r.step, outcome(r.step, state, value or '', iso(now)), now, 'task ' .. id) end
  local waiters = r.waiters
  if not waiters then return end
  for client in string.gmatch(waiters, '%S+') do
    local stream = TAG .. 'replies:' .. client
    if client == 'auction' then
      end_auction(string.gsub(id, ':work$', ''), state, value or '', now)
    elseif value and #value <= 4096 then
      redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', id, 'state', state, 'value', value)
    else
      redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', id, 'state', state)
    end
    redis.call('PEXPIRE', stream, 600000)
  end
end

