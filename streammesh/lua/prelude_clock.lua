-- Put after the prelude of every script where a mesh is under test, and its clock may be moved; never anywhere else.
local real_clock = clock
clock = function() return real_clock() + (tonumber(redis.call('GET', TAG .. 'clock')) or 0) end
