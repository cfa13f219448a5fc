-- What the scripts of this folder share. `Script` puts it before each of them, so that every script is one text.
--
-- ARGV[1] is the time in microseconds since 1970; 0 is this server's clock, and only tests give another.
-- KEYS of one counter, all with the caller's tag in braces, so that they are on one node of a cluster:
--   bucket    string "level stamp serial": how much is out of the bucket, in billionths of a token; when that was so;
--             and the serial of the newest member of the log
--   log       sorted set: one member a hit, which is its serial, scored with its time
--   settlement  string, only for a minute after a change that was no charge (read_settlement)
--   override  string "until capacity refill rpm note": numbers that hold instead of the rule's, until that time
-- All numbers are whole and below 2^53, so that a double holds them exactly.

local call = redis.call
local WINDOW = 60000000   -- of the minute rule, in microseconds
local TOKEN = 1000000000  -- one hit, in the bucket's units
local NEVER = -1          -- a wait that does not end: more than the whole limit was asked

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Lua writes large numbers as 1e+15, which is no member, no lifetime and no state; a score may be written so.
local function whole(number)
  return string.format('%.0f', number)
end

-- How long a counter is kept, in milliseconds: until its minute is over and its bucket is full again.
local function lifetime(level, refill)
  return whole(math.ceil(math.max(WINDOW, level / refill) / 1000) + 1000)
end

-- A bucket's level, stamp and serial; nil where there is no bucket.
local function read_state(state)
  if not state then return nil end
  local level, stamp, serial = string.match(state, '(%d+) (%d+) (%d+)')
  return tonumber(level), tonumber(stamp), tonumber(serial)
end

local function state_of(level, stamp, serial)
  return string.format('%.0f %.0f %.0f', level, stamp, serial)
end

-- What was done to a counter beside charging it:
--   amended  the time of an operator's last change: what is missing from before it is not missed
--   held     how many members stand for hits that another replica passed and has not told of: -1 to -held
--   known    up to when the first replica that told of a loss knew of everything
local function read_settlement(key)
  local amended, held, known = string.match(call('GET', key) or '', '(%d+) (%d+) (%d+)')
  return tonumber(amended or 0), tonumber(held or 0), tonumber(known or 0)
end

local function write_settlement(key, amended, held, known)
  call('SET', key, state_of(amended, held, known), 'PX', 61000)
end

-- The clock went back (a failover, a step): what lies in the future happened now, or its caller would be locked out. What
-- lay in the future of `stamp`, the last charge, is leased, and may still be spent for as long.
local function move_to_now(log, stamp)
  local future = call('ZRANGEBYSCORE', log, '(' .. whole(now), '+inf', 'WITHSCORES')
  for at = 1, #future, 2 do
    call('ZADD', log, 'XX', whole(now + math.max(0, future[at + 1] - stamp)), future[at])
  end
end
