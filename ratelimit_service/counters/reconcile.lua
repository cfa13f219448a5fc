-- Tells the store, after an outage, what one caller spent meanwhile; and what it knew before, where it has lost that.
--
-- KEYS     the bucket and the log (prelude.lua)
-- ARGV[1]  the time (prelude.lua)
-- ARGV[2]  the bucket's refill, in its units a microsecond
-- ARGV[3]  the bucket's level, as the replica counted it
-- ARGV[4]  the store's time of the last charge that it confirmed to the replica
-- then for each second of the replica's log, oldest first:
--   ARGV[at]      its age, in microseconds
--   ARGV[at + 1]  hits that the store had confirmed
--   ARGV[at + 2]  hits that were admitted without it
-- The reply: how many hits were written.

local bucket, log = KEYS[1], KEYS[2]
local refill, level, confirmed_at = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local stored, stamp, serial = read_state(call('GET', bucket))
if not stored then
  stored, stamp, serial = 0, 0, tonumber(call('ZRANGE', log, -1, -1)[1] or 0)
end

-- A charge that it confirmed and does not hold: it restarted empty, or a replica took over that had not heard of it.
local missing = 0
call('ZREMRANGEBYSCORE', log, '-inf', whole(now - WINDOW))
if now - confirmed_at < WINDOW and stamp < confirmed_at then
  for at = 6, #ARGV, 3 do
    missing = missing + tonumber(ARGV[at])
  end
  missing = math.max(0, missing - call('ZCARD', log))
end

local written = 0
for at = #ARGV - 2, 5, -3 do
  local again = math.min(missing, tonumber(ARGV[at + 1]))
  missing = missing - again
  local score = whole(now - tonumber(ARGV[at]))
  for _ = 1, again + tonumber(ARGV[at + 2]) do
    written = written + 1
    call('ZADD', log, score, whole(serial + written))
  end
end

if written > 0 then
  level = math.max(level, stored - math.max(0, now - stamp) * refill)
  local kept = lifetime(level, refill)
  call('SET', bucket, state_of(level, now, serial + written), 'PX', kept)
  call('PEXPIRE', log, kept)
end
return written
