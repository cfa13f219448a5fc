-- One request's charges, all or none. The Python twin is counters/tally.py; a differential test holds them together.
--
-- KEYS, for each charge: its bucket, its log, its override (prelude.lua).
-- ARGV[1]  the time (prelude.lua)
-- ARGV[2]  how many more such requests are wanted as a lease
-- ARGV[3]  how long a lease lives, in microseconds
-- then for each charge:
--   ARGV[at]      hits; 0 passes where 1 would, and charges nothing
--   ARGV[at + 1]  the bucket's capacity, in its units
--   ARGV[at + 2]  the bucket's refill, in its units a microsecond
--   ARGV[at + 3]  the minute rule's limit
--   ARGV[at + 4]  mode: 0 is enforced; 1 is a shadow, which counts and is over limit for itself alone; 2 is a
--                 post-charge, which takes the hits, or what is left of the limit
--
--
-- The reply (scripts.py reads it):
--   [1]  the time
--   [2]  how many more requests were leased
--   then for each charge, as its counter was before it:
--     hits in the window
--     the time of the oldest of them; 0 where there is none
--     the bucket's level
--     the wait until the bucket has room: 0, microseconds, or NEVER
--     the wait until the minute has room
--   then for each override in force:
--     the number of its charge, from 1
--     until when
--     its capacity, its refill and its rpm
--
-- A lease is prepaid: it is charged as if all of it were spent at its end. Its members get that time, and the bucket is
-- set so full that nothing refills until then. So it may be spent at any moment before its end, and no window holds more
-- than the limit.

local ENFORCED, POST_CHARGE = '0', '2'
local SHARE = 20          -- a lease is at most this part of the smaller of burst and rpm
local MAX_LEASE = 1000000 -- serials that a lease may be ahead of the newest member

local leased, lease_life = tonumber(ARGV[2]), tonumber(ARGV[3])
local overrides = {}
-- A table that has its size from the start is not built again while it grows: one charge is the usual case.
local reply, last = {now, 0, 0, 0, 0, 0, 0}, 2

-- The numbers that hold for a charge: an override's while it is in force, else its rule's.
local function numbers_of(nth, override, at)
  if override then
    local till, size, speed, most = string.match(override, '^(%d+) (%d+) (%d+) (%d+)')
    if till and tonumber(till) > now then
      local capacity, refill, rpm = tonumber(size), tonumber(speed), tonumber(most)
      overrides[#overrides + 1] = {nth, tonumber(till), capacity, refill, rpm}
      return capacity, refill, rpm
    end
  end
  return tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
end

-- What a charge would make of its counter. What the counter held before goes into the reply.
local function read(nth)
  local bucket, log, at = KEYS[3 * nth - 2], KEYS[3 * nth - 1], 5 * nth - 1
  local held = call('MGET', bucket, KEYS[3 * nth])
  local hits, mode = tonumber(ARGV[at]), ARGV[at + 4]
  local capacity, refill, rpm = numbers_of(nth, held[2], at)

  local level, stamp, serial = read_state(held[1])
  if level then
    if stamp > now then
      move_to_now(log, stamp)
      call('SET', bucket, state_of(level, now, serial), 'PX', lifetime(level, refill))
      call('PEXPIRE', log, lifetime(level, refill))
      stamp = now
    end
    level = math.max(0, level - (now - stamp) * refill)
  else
    -- Normally there is no log either. If only the bucket is gone, new members must not overwrite old ones.
    -- A lease's are the last by time and may be behind by their number.
    level, serial = 0, tonumber(call('ZRANGE', log, -1, -1)[1] or -MAX_LEASE) + MAX_LEASE
  end

  -- Nothing is written before it is sure that all is charged. What has left the window is only skipped here.
  local used, stale, oldest = call('ZCARD', log), 0, 0
  if used > 0 then
    oldest = tonumber(call('ZRANGE', log, 0, 0, 'WITHSCORES')[2])
    if oldest <= now - WINDOW then
      stale = call('ZCOUNT', log, '-inf', now - WINDOW)
      used = used - stale
      oldest = tonumber(call('ZRANGE', log, stale, stale, 'WITHSCORES')[2] or 0)
    end
  end

  local level_after, burst_wait, minute_wait = level + hits * TOKEN, 0, 0
  if mode == POST_CHARGE then
    leased = 0
    hits, level_after = math.min(hits, math.max(0, rpm - used)), math.max(level, math.min(level_after, capacity))
  else
    local asked = math.max(1, hits) -- what costs nothing passes only where one hit would
    local excess, too_many = level + asked * TOKEN - capacity, used + asked - rpm
    if excess > 0 then
      burst_wait = asked * TOKEN > capacity and NEVER or math.floor((excess + refill - 1) / refill)
    end
    if too_many > 0 then
      minute_wait = NEVER
      if asked <= rpm then
        local index = stale + too_many - 1
        minute_wait = tonumber(call('ZRANGE', log, index, index, 'WITHSCORES')[2]) + WINDOW - now
      end
    end
    if hits > 0 and excess <= 0 and too_many <= 0 then
      -- From the first half of the bucket and three quarters of the minute: near the limit each request is asked about.
      local tokens = (capacity / 2 - math.max(level_after, lease_life * refill)) / TOKEN
      local most = math.min(tokens, 3 * rpm / 4 - used - hits, math.min(capacity / TOKEN, rpm) / SHARE)
      leased = math.max(0, math.min(leased, math.floor(most / hits)))
    elseif hits > 0 then
      leased = 0
    end
  end

  reply[last + 1], reply[last + 2], reply[last + 3] = used, oldest, level
  reply[last + 4], reply[last + 5] = burst_wait, minute_wait
  last = last + 5
  -- Eight fields: with more, Lua would take twice the memory for the table.
  return {
    hits = hits, refill = refill, serial = serial, stale = stale, mode = mode, level = level_after,
    spends = hits > 0 or level_after > level, fits = burst_wait == 0 and minute_wait == 0,
  }
end

local function add_members(log, moment, serial, hits)
  local done = 0
  while done < hits do
    local members = {}
    for _ = 1, math.min(hits - done, 1000) do
      done = done + 1
      members[#members + 1] = moment
      members[#members + 1] = whole(serial + done)
    end
    call('ZADD', log, unpack(members))
  end
end

-- The first write is one that a full store rejects: later ones would go through, once a script has written.
local function charge(nth, reading)
  local log, hits, serial = KEYS[3 * nth - 1], reading.hits, reading.serial
  if hits == 1 then
    call('ZADD', log, now, whole(serial + 1))
  else
    add_members(log, now, serial, hits)
  end
  if reading.stale > 0 then
    call('ZREMRANGEBYSCORE', log, '-inf', now - WINDOW)
  end
  local level, prepaid = reading.level, leased * hits
  if prepaid > 0 then
    add_members(log, now + lease_life, serial + hits, prepaid)
    level = math.max(level, lease_life * reading.refill) + prepaid * TOKEN
  end
  local kept = lifetime(level, reading.refill)
  call('SET', KEYS[3 * nth - 2], state_of(level, now, serial + hits + prepaid), 'PX', kept)
  call('PEXPIRE', log, kept)
end

local readings, passes = {}, true
for nth = 1, #KEYS / 3 do
  local reading = read(nth)
  readings[nth] = reading
  passes = passes and (reading.fits or reading.mode ~= ENFORCED)
end
if not passes then leased = 0 end
reply[2] = leased
for nth, reading in ipairs(readings) do
  if reading.spends and (reading.mode == POST_CHARGE or (passes and reading.fits)) then
    charge(nth, reading)
  end
end
for _, override in ipairs(overrides) do
  for _, number in ipairs(override) do
    last = last + 1
    reply[last] = number
  end
end
return reply
