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

-- Makes sure that `stream` has its group, from its first entry, and that its capability is listed.
local function open(stream, capability)
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, 'agents', '0', 'MKSTREAM')
    if capability then redis.call('SADD', TAG .. 'caps', capability) end
  end
end

-- The optional fields of an entry, in their order on the wire; anything else a record carries as `header.<name>`.
local WIRE = {'capability', 'deadline', 'run', 'step', 'correlation', 'causation', 'hops', 'traceparent', 'by'}

-- Puts the task `id` with the record `r` (a table) at the tail of its stream: entry added, record queued.
local function put(id, r, now)
  local stream = TAG .. 'tasks:' .. r.capability
  local args = {'id', id, 'payload', r.payload or '{}', 'attempt', text((tonumber(r.attempt) or 0) + 1), 'at', iso(now)}
  for _, name in ipairs(WIRE) do
    if r[name] and (name ~= 'capability' or r.to) then
      args[#args + 1] = name
      args[#args + 1] = r[name]
    end
  end
  for name, value in pairs(r) do
    if string.sub(name, 1, 7) == 'header.' then
      args[#args + 1] = string.sub(name, 8)
      args[#args + 1] = value
    end
  end
  if r.to then
    stream = TAG .. 'inbox:' .. r.to
    if redis.call('EXISTS', stream) == 0 then redis.call('ZADD', TAG .. 'inboxes', text(now), r.to) end
    open(stream)
  else
    if r.priority then stream = stream .. ':' .. r.priority end
    open(stream, r.capability)
  end
  local entry = redis.call('XADD', stream, '*', unpack(args))
  redis.call('HSET', TAG .. 'task:' .. id, 'state', 'queued', 'entry', entry)
  return entry
end

-- Tells every waiting client what became of `id`. A hint: the record is the truth.
local function answer(id, waiters, state, value)
  if not waiters then return end
  for client in string.gmatch(waiters, '%S+') do
    local stream = TAG .. 'replies:' .. client
    if value and #value <= 4096 then
      redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', id, 'state', state, 'value', value)
    else
      redis.call('XADD', stream, 'MAXLEN', '~', 10000, '*', 'id', id, 'state', state)
    end
    redis.call('PEXPIRE', stream, 600000)
  end
end

-- Ends the task `id` as a dead letter. Kept for a week as a record, until somebody replays or removes it as a letter.
local function bury(id, r, reason, why, now, detail)
  local at = iso(now)
  redis.call('SADD', TAG .. 'caps', r.capability)
  local letter = redis.call('XADD', TAG .. 'dead:' .. r.capability, '*', 'id', id, 'payload', r.payload or '{}',
    'reason', reason, 'error', why, 'attempts', r.attempt or '0', 'agent', r.agent or '', 'at', at)
  local key = TAG .. 'task:' .. id
  redis.call('HSET', key, 'state', 'dead', 'capability', r.capability, 'reason', reason, 'error', why, 'letter', letter,
    'finished_at', at)
  if detail and detail ~= '' then redis.call('HSET', key, 'error_detail', detail) end
  redis.call('PEXPIRE', key, 604800000)
  event('task.dead', 'task', id, 'capability', r.capability, 'reason', reason, 'msg', why, 'at', at)
  answer(id, r.waiters, 'dead', why)
end
