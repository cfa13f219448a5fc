-- Tell the store, after an outage, what one caller spent meanwhile; and what it knew before, where it has lost that.
--
-- KEYS: the bucket and the log (see decide.lua). ARGV: the time (0: this server's clock), the bucket's refill a
-- microsecond, its level, the store's time of the last charge that it confirmed, then for each log entry, oldest first,
-- its age, the units that the store knew of and those admitted without it. Answer: the units written.

local call = redis.call
local WINDOW = 60000000
local bucket, log = KEYS[1], KEYS[2]
local refill, level, seen = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local stored, stamp, serial = 0, 0, 0
local state = call('GET', bucket)
if state then
  stored, stamp, serial = string.match(state, '(%d+) (%d+) (%d+)')
  stored, stamp, serial = tonumber(stored), tonumber(stamp), tonumber(serial)
else
  serial = tonumber(call('ZRANGE', log, -1, -1)[1] or 0)
end

-- A charge that it confirmed and does not hold: it restarted empty, or a replica took over that had not heard of it.
local missing = 0
call('ZREMRANGEBYSCORE', log, '-inf', whole(now - WINDOW))
if now - seen < WINDOW and stamp < seen then
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
  local span = whole(math.ceil(math.max(WINDOW, level / refill) / 1000) + 1000)
  call('SET', bucket, whole(level) .. ' ' .. whole(now) .. ' ' .. whole(serial + written), 'PX', span)
  call('PEXPIRE', log, span)
end
return written
