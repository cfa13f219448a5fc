-- An operator's hand on one counter. The Python twin is MemoryCounters.operate.
--
-- KEYS: the bucket, the log and the override (see decide.lua). ARGV: the time (0: this server's clock), the verb, and
--   reset                                                      nothing is spent but leases; answers the units that were
--   grant    units                                             gives the newest units back; answers how many
--   override until, or 0 and a lifetime; burst refill rpm note answers until when; 0 if that is over
--   remove                                                     answers 1 if an override was in force
-- Overrides are kept with the caller's counters, so that they hold whoever else is away, and end by themselves.

local call = redis.call
local WINDOW, TOKEN = 60000000, 1000000000
local bucket, log, override = KEYS[1], KEYS[2], KEYS[3]

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

local function state()
  local held = call('GET', bucket)
  local level, stamp, serial = string.match(held or '', '(%d+) (%d+) (%d+)')
  return held, tonumber(level or 0), tonumber(stamp or 0), serial or '0'
end

-- As in decide.lua: after a clock that went back, what lies in the future happened now.
local function settle_clock(stamp)
  if stamp > now then
    for _, member in ipairs(call('ZRANGEBYSCORE', log, '(' .. whole(now), '+inf')) do
      call('ZADD', log, 'XX', now, member)
    end
  end
  return math.min(stamp, now)
end

local function live()
  return call('ZCOUNT', log, '(' .. whole(now - WINDOW), '+inf')
end

local verbs = {}

function verbs.reset()
  local used = live()
  local _, _, stamp, serial = state()
  settle_clock(stamp)
  call('ZREMRANGEBYSCORE', log, '-inf', now)
  -- What is left are leases that may still be spent: without them, so much more than the limit would pass from now on.
  local leased = call('ZCARD', log)
  -- The bucket stays, with the time: a replica that comes back from an outage must not take the reset for a loss.
  local lifetime = leased > 0 and math.max(61000, call('PTTL', bucket)) or 61000
  local fresh = {whole(leased * TOKEN), whole(now), leased > 0 and serial or '0'}
  call('SET', bucket, table.concat(fresh, ' '), 'PX', lifetime)
  return used - leased
end

function verbs.grant()
  local units = tonumber(ARGV[3])
  local held, level, stamp, serial = state()
  stamp = settle_clock(stamp)
  local given = math.min(units, live())
  if held then
    level = math.max(0, level - units * TOKEN)
    call('SET', bucket, whole(level) .. ' ' .. whole(stamp) .. ' ' .. serial, 'KEEPTTL')
  end
  if given > 0 then
    call('ZREMRANGEBYRANK', log, -given, -1)
  end
  return given
end

function verbs.override()
  local till = tonumber(ARGV[3])
  if till == 0 then
    till = now + tonumber(ARGV[4])
  end
  if till <= now then
    return 0
  end
  local numbers = {whole(till), whole(tonumber(ARGV[5]) * TOKEN), ARGV[6], ARGV[7], ARGV[8]}
  call('SET', override, table.concat(numbers, ' '), 'PX', whole(math.ceil((till - now) / 1000)))
  return till
end

function verbs.remove()
  local till = string.match(call('GET', override) or '', '^(%d+) ')
  call('DEL', override)
  return till and tonumber(till) > now and 1 or 0
end

return verbs[ARGV[2]]()
