-- Replicas tell each other, through the store, who has spent much. Once or twice a second each, beside all requests.
--
-- KEYS[1]  order: sorted set of counters, each scored with the number of its last news
-- KEYS[2]  news: hash of a counter to "time used level refill", as the store said at that time
-- KEYS[3]  the store's mark, which must not expire while somebody is connected
-- ARGV[1]  the time (prelude.lua)
-- ARGV[2]  the number of the last news that the replica has read; 0 is none
-- ARGV[3]  how many it reads at most
-- then for each of its own news: the counter, and the text
-- The reply: the time; the number of the last news that follows; then for each its counter and its text.

local order, news, mark = KEYS[1], KEYS[2], KEYS[3]
local MARK_SECONDS = 86400
local OLD_AT_ONCE = 100

local function time_of(text)
  return tonumber(string.match(text or '', '^(%d+) ') or 0)
end

call('EXPIRE', mark, MARK_SECONDS)
local number = tonumber(call('ZREVRANGE', order, 0, 0, 'WITHSCORES')[2] or 0)
for at = 4, #ARGV, 2 do
  local counter, text = ARGV[at], ARGV[at + 1]
  local held = time_of(call('HGET', news, counter))
  if held > now or held < time_of(text) then -- the later one is right; what lies in the future was before a clock's step
    number = number + 1
    call('ZADD', order, whole(number), counter)
    call('HSET', news, counter, text)
  end
end
if #ARGV > 3 then
  call('PEXPIRE', order, 61000)
  call('PEXPIRE', news, 61000)
end

for _, counter in ipairs(call('ZRANGE', order, 0, OLD_AT_ONCE - 1)) do
  if time_of(call('HGET', news, counter)) > now - WINDOW then break end
  call('ZREM', order, counter)
  call('HDEL', news, counter)
end

local read = tonumber(ARGV[2])
if read > number then read = 0 end -- the store has lost its numbers
local unread = call('ZRANGEBYSCORE', order, '(' .. whole(read), '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local reply = {now, read}
for at = 1, #unread, 2 do
  reply[2] = tonumber(unread[at + 1])
  reply[#reply + 1] = unread[at]
  reply[#reply + 1] = call('HGET', news, unread[at])
end
return reply
