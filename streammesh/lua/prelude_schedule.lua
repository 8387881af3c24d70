-- Put after prelude_run before every script that says `With prelude_run, prelude_schedule`: what a schedule starts.

-- Whether the task or run that the schedule `r` started last has not ended.
local function at_work(r)
  if not r.last or r.last == '' then return false end
  local state = redis.pcall('HGET', key_of((r.workflow and 'run ' or '') .. r.last), 'state')
  if type(state) ~= 'string' then return false end
  return not (state == 'succeeded' or state == 'failed' or state == 'cancelled' or state == 'dead' or state == 'expired')
end

-- Starts one occurrence of the schedule `name` with the fields `r`: a run, or a task, with the id `id`. Known ids stay as they are.
local function start_occurrence(name, r, id, occurrence, now)
  local at = iso(now)
  if r.workflow then
    if start(id, r.workflow, r.version, r.input, 'attach', 1, 0, 0, now) == 'ok' then
      redis.call('HSET', TAG .. 'run:' .. id, 'schedule', name, 'occurrence', occurrence)
    end
  else
    local stream = TAG .. 'tasks:' .. r.task
    enqueue(stream, usable(stream), r.task, id, r.input, '', {'header.schedule', name, 'header.occurrence', occurrence}, now, at)
  end
  r.last = id
  redis.call('HSET', TAG .. 'schedule:' .. name, 'last', id, 'last_at', at)
  redis.call('HINCRBY', TAG .. 'schedule:' .. name, 'fired', 1)
  event('schedule.fired', 'schedule', name, r.workflow and 'run' or 'task', id, 'at', at)
end

-- Ends what the schedule `r` started last, because `id` takes its place.
local function end_last(r, id, keep, now)
  if r.workflow then
    local h = redis.call('HMGET', TAG .. 'run:' .. r.last, 'capability', 'version', 'entry')
    away(runs_of(h[1], h[2]), {h[3] or nil})
    finish_run(r.last, 'cancelled', 'replaced by ' .. id, keep, now)
  else
    cancel(r.last, id .. ', which takes its place', keep, now)
  end
end
