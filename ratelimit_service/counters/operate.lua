-- An operator's change of one counter. The Python twin is MemoryCounters.operate.
--
-- KEYS     the bucket, the log, the override, the settlement (prelude.lua)
-- ARGV[1]  the time (prelude.lua)
-- ARGV[2]  the verb, and then what it needs:
--   reset     nothing is spent but leases. The reply: how many hits were
--   grant     ARGV[3] hits: gives the newest ones back. The reply: how many
--   override  ARGV[3] until, or 0 and ARGV[4] a lifetime; ARGV[5] burst, ARGV[6] refill, ARGV[7] rpm, ARGV[8] a note.
--             The reply: until when; 0 if that is over
--   remove    The reply: 1 if an override was in force
-- Overrides are kept with the caller's counters, so that they hold whichever part is away, and end by themselves.

local bucket, log, override, settlement = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function live()
  return call('ZCOUNT', log, '(' .. whole(now - WINDOW), '+inf')
end

-- A replica that comes back from an outage must not take what was forgiven for a loss.
local function amend()
  local _, held, known = read_settlement(settlement)
  write_settlement(settlement, now, held, known)
end

-- After a clock that went back, what lies in the future happened now.
local function not_after_now(stamp)
  if stamp > now then move_to_now(log, stamp) end
  return math.min(stamp, now)
end

local verbs = {}

function verbs.reset()
  local used = live()
  local _, stamp, serial = read_state(call('GET', bucket))
  not_after_now(stamp or 0)
  call('ZREMRANGEBYSCORE', log, '-inf', now)
  -- What is left are leases that may still be spent: without them, so much more than the limit would pass from now on.
  local leased = call('ZCARD', log)
  local kept = leased > 0 and math.max(61000, call('PTTL', bucket)) or 61000
  call('SET', bucket, state_of(leased * TOKEN, now, leased > 0 and serial or 0), 'PX', kept)
  amend()
  return used - leased
end

function verbs.grant()
  local hits = tonumber(ARGV[3])
  local level, stamp, serial = read_state(call('GET', bucket))
  stamp = not_after_now(stamp or 0)
  local given = math.min(hits, live())
  if level then
    call('SET', bucket, state_of(math.max(0, level - hits * TOKEN), stamp, serial), 'KEEPTTL')
  end
  if given > 0 then
    call('ZREMRANGEBYRANK', log, -given, -1)
    amend()
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
