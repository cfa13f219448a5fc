-- One request's charges, all or none. The Python twin is counters/memory.py; a differential test holds them together.
--
-- KEYS: for each charge its bucket, its log and its override. ARGV: the time in microseconds (0: this server's clock;
-- only tests give another), how many more such requests to charge ahead (a lease) and for how long; then for each charge
-- its cost, the bucket's capacity and refill a microsecond, rpm and mode: 0 counts and may refuse, 1 (shadow) counts and
-- refuses only itself, 2 (late) takes the cost or what is left.
-- Answer: the time and how many are leased, then for each charge used, oldest, level, burst wait and minute wait, all as
-- before the charge; then for each override in force which charge's it is, until when, and its capacity, refill and rpm.
--
-- A lease is charged as if it were spent at its end: its members have that time, and the bucket is at least as full as
-- leaves nothing to refill until then. So it may be spent at any moment before, and no window holds more than the limit.
--
-- A bucket is "level stamp serial": how much is out (billionths of a token), when that was so, and the last member of
-- the log. A log has one member per unit, scored with its time. An override is "until capacity refill rpm" and a note.
-- All numbers are whole and below 2^53.

local call = redis.call
local WINDOW, TOKEN, NEVER = 60000000, 1000000000, -1
local SHARE = 20 -- a lease is at most this part of the smaller of burst and rpm
local MAX_LEASE = 1000000

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Lua writes large numbers as 1e+15, which is no member, no lifetime and no state; a score may be written so.
local function whole(number)
  return string.format('%.0f', number)
end

local function keep(bucket, log, level, refill, serial)
  local span = whole(math.ceil(math.max(WINDOW, level / refill) / 1000) + 1000)
  call('SET', bucket, string.format('%.0f %.0f %.0f', level, now, serial), 'PX', span)
  call('PEXPIRE', log, span)
end

-- The clock went back (a failover, a step): what lies in the future happened now, or its caller would be locked out.
local function settle_clock(log)
  for _, member in ipairs(call('ZRANGEBYSCORE', log, '(' .. whole(now), '+inf')) do
    call('ZADD', log, 'XX', now, member)
  end
end

local leased, span = tonumber(ARGV[2]), tonumber(ARGV[3])
local overrides = {}

local function numbers(nth, override, at)
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

local function read(nth)
  local bucket, log, at = KEYS[3 * nth - 2], KEYS[3 * nth - 1], 5 * nth - 1
  local held = call('MGET', bucket, KEYS[3 * nth])
  local state, cost = held[1], tonumber(ARGV[at])
  local capacity, refill, rpm = numbers(nth, held[2], at)
  local level, serial = 0, 0

  if state then
    local stored, stamp
    stored, stamp, serial = string.match(state, '(%d+) (%d+) (%d+)')
    level, stamp, serial = tonumber(stored), tonumber(stamp), tonumber(serial)
    if stamp > now then
      settle_clock(log)
      keep(bucket, log, level, refill, serial)
      stamp = now
    end
    level = math.max(0, level - (now - stamp) * refill)
  else
    -- Normally there is no log either. If only the bucket is gone, new members must not overwrite old ones.
    -- A lease's are the last by time and may be behind by their number.
    serial = tonumber(call('ZRANGE', log, -1, -1)[1] or -MAX_LEASE) + MAX_LEASE
  end

  -- Nothing is written before it is sure that all is charged. What has left the window is only skipped here.
  local used, stale = call('ZCARD', log), 0
  local oldest = 0
  if used > 0 then
    oldest = tonumber(call('ZRANGE', log, 0, 0, 'WITHSCORES')[2])
    if oldest <= now - WINDOW then
      stale = call('ZCOUNT', log, '-inf', now - WINDOW)
      used = used - stale
      oldest = tonumber(call('ZRANGE', log, stale, stale, 'WITHSCORES')[2] or 0)
    end
  end

  local mode = ARGV[at + 4]
  if mode == '2' then
    leased = 0
    local units = math.min(cost, math.max(0, rpm - used))
    local after = math.max(level, math.min(level + cost * TOKEN, capacity))
    return {bucket, log, units, refill, serial, level, used, oldest, 0, 0, stale, after, mode}
  end

  local burst_wait, minute_wait = 0, 0
  local after = level + cost * TOKEN
  local excess = after - capacity
  if excess > 0 then
    burst_wait = cost * TOKEN > capacity and NEVER or math.floor((excess + refill - 1) / refill)
  end
  local in_the_way = used + cost - rpm
  if in_the_way > 0 then
    minute_wait = NEVER
    if cost <= rpm then
      local index = stale + in_the_way - 1
      local last = call('ZRANGE', log, index, index, 'WITHSCORES')
      minute_wait = tonumber(last[2]) + WINDOW - now
    end
  end
  if cost > 0 and excess <= 0 and in_the_way <= 0 then
    -- From the first half of the bucket and three quarters of the minute: near the limit each request is asked about.
    local tokens = (capacity / 2 - math.max(after, span * refill)) / TOKEN
    local most = math.min(tokens, 3 * rpm / 4 - used - cost, math.min(capacity / TOKEN, rpm) / SHARE)
    leased = math.max(0, math.min(leased, math.floor(most / cost)))
  elseif cost > 0 then
    leased = 0
  end
  return {bucket, log, cost, refill, serial, level, used, oldest, burst_wait, minute_wait, stale, after, mode}
end

local function add_members(log, moment, serial, cost)
  local done = 0
  while done < cost do
    local members = {}
    for _ = 1, math.min(cost - done, 1000) do
      done = done + 1
      members[#members + 1] = moment
      members[#members + 1] = whole(serial + done)
    end
    call('ZADD', log, unpack(members))
  end
end

-- The first write is one that a full store refuses: later ones would go through, once a script has written.
local function charge(reading)
  local bucket, log, cost, refill, serial = unpack(reading, 1, 5)
  local stale = reading[11]
  if cost == 1 then
    call('ZADD', log, now, whole(serial + 1))
  else
    add_members(log, now, serial, cost)
  end
  if stale > 0 then
    call('ZREMRANGEBYSCORE', log, '-inf', now - WINDOW)
  end
  local level, ahead = reading[12], leased * cost
  if ahead > 0 then
    add_members(log, now + span, serial + cost, ahead)
    level = math.max(level, span * refill) + ahead * TOKEN
  end
  keep(bucket, log, level, refill, serial + cost + ahead)
end

local readings, passes, answer = {}, true, {now, 0}
for nth = 1, #KEYS / 3 do
  local reading = read(nth)
  local fits = reading[9] == 0 and reading[10] == 0
  readings[nth] = reading
  reading[14] = fits
  passes = passes and (fits or reading[13] ~= '0')
  answer[#answer + 1] = reading[7]
  answer[#answer + 1] = reading[8]
  answer[#answer + 1] = reading[6]
  answer[#answer + 1] = reading[9]
  answer[#answer + 1] = reading[10]
end
if not passes then leased = 0 end
answer[2] = leased
for _, reading in ipairs(readings) do
  local spends = reading[3] > 0 or reading[12] > reading[6]
  if spends and (reading[13] == '2' or (passes and reading[14])) then
    charge(reading)
  end
end
for _, override in ipairs(overrides) do
  for _, number in ipairs(override) do
    answer[#answer + 1] = number
  end
end
return answer
