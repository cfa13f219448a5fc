-- Tells the store, after an outage, what one caller spent meanwhile; and what it knew before, where it has lost that.
--
-- KEYS     the bucket, the log and the settlement (prelude.lua)
-- ARGV[1]  the time (prelude.lua)
-- ARGV[2]  the bucket's refill, in its units a microsecond
-- ARGV[3]  the bucket's level, as the replica counted it
-- ARGV[4]  the store's time of the last charge that it confirmed to the replica
-- ARGV[5]  1 if the replica knows that the store has lost everything since then
-- then for each entry of the replica's log, oldest first:
--   ARGV[at]      its time, by the store's clock
--   ARGV[at + 1]  hits of other replicas that the store had confirmed
--   ARGV[at + 2]  hits that this replica let pass without the store
--   ARGV[at + 3]  the score at which the store had confirmed hits of this replica
--   ARGV[at + 4]  how many they were
-- The reply: how many hits were written.
--
-- Each replica tells of its own hits, so that all of them together are told once, whatever the order. A hit of its own
-- that is not in the log at its score is lost: no other charge has that score. Where some are lost, so are those of
-- others; until they tell of them, what this replica knew of them is held for them by members that stand for them.

local bucket, log, settlement = KEYS[1], KEYS[2], KEYS[3]
local refill, level, confirmed_at, is_emptied = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local FIRST, EACH = 6, 5
local SECOND = 1000000

local stored, stamp, serial = read_state(call('GET', bucket))
local is_new = not stored
if is_new then
  stored, stamp, serial = 0, 0, math.max(0, tonumber(call('ZRANGE', log, -1, -1)[1] or 0))
end
local amended, held, known = read_settlement(settlement)
local written = 0

local function write(score, hits)
  for _ = 1, hits do
    serial, written = serial + 1, written + 1
    call('ZADD', log, whole(score), whole(serial))
  end
end

local function has_kept(score)
  if score > now then return not (is_new or is_emptied) end -- its clock went back, and has moved the score
  return score <= amended or call('ZCOUNT', log, whole(score), whole(score)) > 0
end

-- Calls visit(time, hits of others, hits without the store, score, own hits) for each entry.
local function each_entry(visit)
  for at = FIRST, #ARGV, EACH do
    visit(tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]),
      tonumber(ARGV[at + 4]))
  end
end

call('ZREMRANGEBYSCORE', log, '-inf', whole(now - WINDOW))

-- What is lost of the replica's own, and how much of it came too late for the first replica that told of the loss.
local lost, late = 0, 0
each_entry(function(_, _, _, score, own)
  if own == 0 or score <= now - WINDOW or has_kept(score) then return end
  write(math.min(score, now + SECOND), own)
  lost = lost + own
  if known > 0 and score > known then late = late + own end
end)

-- They need nobody any more to stand for them.
local told = math.min(lost, held)
for nth = held, held - told + 1, -1 do
  call('ZREM', log, whole(-nth))
end
held = held - told

local function hold_for_others()
  local counted, missing = {}, -call('ZCARD', log)
  each_entry(function(at, others, _, score, own)
    if others > 0 and at > math.max(amended, now - WINDOW) then
      counted[#counted + 1] = {at, others}
      missing = missing + others
    end
    if score > math.max(amended, now - WINDOW) then missing = missing + own end
  end)
  for nth = #counted, 1, -1 do
    for _ = 1, math.min(missing, counted[nth][2]) do
      held, written, missing = held + 1, written + 1, missing - 1
      call('ZADD', log, whole(counted[nth][1]), whole(-held))
    end
  end
end
if lost > 0 or is_emptied then hold_for_others() end

each_entry(function(at, _, without)
  if at > now - WINDOW then write(at, without) end
end)

if lost > 0 or written > 0 then
  level = math.max(level, math.max(0, stored - math.max(0, now - stamp) * refill) + late * TOKEN)
  local kept = lifetime(level, refill)
  call('SET', bucket, state_of(level, now, serial), 'PX', kept)
  call('PEXPIRE', log, kept)
  if lost > 0 or held > 0 then
    write_settlement(settlement, amended, held, known > 0 and math.min(known, confirmed_at) or confirmed_at)
  end
end
return written
