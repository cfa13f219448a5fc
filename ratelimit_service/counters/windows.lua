-- One request's spends, all or none. The Python twin is MemoryWindows; a differential test holds them together.
--
-- KEYS, for each spend: its counter.
-- ARGV[1]  the time (prelude.lua)
-- then for each spend:
--   ARGV[at]      the window, in microseconds
--   ARGV[at + 1]  the slot, in microseconds; 0 is an exact log
--   ARGV[at + 2]  the limit
--   ARGV[at + 3]  the hits
--   ARGV[at + 4]  1 for a shadow, 2 for a quota, 3 for both
-- The reply: the time; then for each spend, as before it: used, when the oldest hits leave, and the wait.
--
-- A log is a sorted set, scored with the moment at which hits leave, of "total:hits": the total counts on, so that what
-- is used is a difference. A counter is a hash of the moment at which a slot leaves to its hits; there are at most 62.

local function total_and_hits(member)
  local total, hits = string.match(member, '^(%d+):(%d+)$')
  return tonumber(total), tonumber(hits)
end

-- The entry after which so many hits have left, by halving: totals rise with the rank.
local function leaves_after(key, first, base, excess)
  local low, high = first, call('ZCARD', key) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local total = total_and_hits(call('ZRANGE', key, middle, middle)[1])
    if total - base >= excess then high = middle else low = middle + 1 end
  end
  return tonumber(call('ZRANGE', key, low, low, 'WITHSCORES')[2])
end

local function read_log(reading, limit)
  local key = reading.key
  local newest = call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  if not newest[1] then return end
  reading.total, reading.latest = total_and_hits(newest[1]), tonumber(newest[2])
  if reading.latest <= now then return end
  local oldest = call('ZRANGEBYSCORE', key, '(' .. whole(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local total, hits = total_and_hits(oldest[1])
  reading.used, reading.leaves = reading.total - total + hits, tonumber(oldest[2])
  local excess = reading.used + reading.hits - limit
  if excess > 0 and reading.hits <= limit then
    reading.wait = leaves_after(key, call('ZRANK', key, oldest[1]), total - hits, excess) - now
  end
end

local function read_slots(reading, limit)
  local slots, raw = {}, call('HGETALL', reading.key)
  for at = 1, #raw, 2 do
    local moment = tonumber(raw[at])
    if moment > now then
      slots[#slots + 1] = {moment, tonumber(raw[at + 1])}
      reading.used = reading.used + slots[#slots][2]
    end
  end
  table.sort(slots, function(one, other) return one[1] < other[1] end)
  if slots[1] then reading.leaves = slots[1][1] end
  local excess = reading.used + reading.hits - limit
  if reading.hits > limit then return end
  for _, slot in ipairs(slots) do
    if excess <= 0 then return end
    excess, reading.wait = excess - slot[2], slot[1] - now
  end
end

local function read(nth)
  local at = 5 * nth - 3
  local reading = {
    key = KEYS[nth], window = tonumber(ARGV[at]), slot = tonumber(ARGV[at + 1]), hits = tonumber(ARGV[at + 3]),
    shadow = tonumber(ARGV[at + 4]) % 2 == 1, quota = tonumber(ARGV[at + 4]) >= 2, used = 0, leaves = 0, wait = 0, total = 0, latest = 0,
  }
  local limit = tonumber(ARGV[at + 2])
  if reading.slot == 0 then read_log(reading, limit) else read_slots(reading, limit) end
  if reading.hits > limit then reading.wait = NEVER end
  return reading
end

local function charge(reading)
  local key = reading.key
  if reading.slot == 0 then
    local leaves = math.max(now + reading.window, reading.latest) -- a clock that went back must not disorder totals
    call('ZADD', key, whole(leaves), string.format('%016.0f:%.0f', reading.total + reading.hits, reading.hits))
    call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
    call('PEXPIRE', key, whole(math.ceil(reading.window / 1000) + 1000))
    return
  end
  -- A slot leaves a whole window after its end: nothing counts for less than its window.
  local leaves = (math.floor(now / reading.slot) + 1) * reading.slot + reading.window
  call('HINCRBY', key, whole(leaves), whole(reading.hits))
  for _, moment in ipairs(call('HKEYS', key)) do
    if tonumber(moment) <= now then call('HDEL', key, moment) end
  end
  call('PEXPIRE', key, whole(math.ceil((reading.window + reading.slot) / 1000) + 1000))
end

-- One quota that fits is enough; of the others, all must fit. No quota at all is as good as one that fits.
local readings, passes, quotas, fitting, reply = {}, true, 0, 0, {now}
for nth = 1, #KEYS do
  local reading = read(nth)
  readings[nth] = reading
  local fits = reading.wait == 0 or reading.shadow
  if reading.quota then
    quotas, fitting = quotas + 1, fitting + (fits and 1 or 0)
  else
    passes = passes and fits
  end
  reply[#reply + 1] = reading.used
  reply[#reply + 1] = reading.leaves
  reply[#reply + 1] = reading.wait
end
passes = passes and (quotas == 0 or fitting > 0)
for _, reading in ipairs(readings) do
  if passes and reading.wait == 0 and reading.hits > 0 then charge(reading) end
end
return reply
