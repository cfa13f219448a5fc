-- Leases: requests that the rate-limit service has charged ahead, spent here without asking it. A lease belongs to this
-- worker, to one caller and tier, and to the numbers that held; it ends a moment after it was asked for. What is not
-- covered asks, and says what became of the last lease, so that the service can size the next.

local LIMITER = "envoy.filters.http.ratelimit"
local WORKER = string.match(tostring({}), "0x(%x+)") .. string.format("%x", os.time() % 65536)
local MAX_LEASES = 20000

-- By the route's limits and the caller, in two generations as in the decision cache.
local young, old, count = {}, {}, 0

local function held(key)
  local lease = young[key]
  if lease == nil then
    lease = old[key]
    if lease ~= nil then young[key], count = lease, count + 1 end
  end
  return lease
end

local function hold(key, lease)
  if young[key] == nil then
    if count >= MAX_LEASES then young, old, count = {}, young, 0 end
    count = count + 1
  end
  young[key] = lease
end

-- The lease to spend from. One that was asked for in time waits behind the one that it follows.
local function current(key, now)
  local lease = held(key)
  if lease == nil or (lease.left > 0 and now < lease.ends) then return lease end
  if lease.following ~= nil then
    lease = lease.following
    hold(key, lease)
  end
  return lease
end

local function ask(headers, metadata, key, lease, now)
  local report = lease and (lease.serial .. "." .. lease.units - lease.left) or "0.0"
  headers:replace("x-mgw-lease", WORKER .. "." .. report)
  note(metadata, {key = key, lease = lease, asked = now})
end

-- Lets the request pass without asking, or notes that it asks.
local function spend(headers, metadata, limits, who, now)
  local key = limits .. who.charged
  local lease = current(key, now)
  if lease == nil or lease.left == 0 or now >= lease.ends then return ask(headers, metadata, key, lease, now) end
  if lease.left == lease.renew_at then
    lease.renew_at = -1
    return ask(headers, metadata, key, lease, now)
  end
  lease.left = lease.left - 1
  headers:replace("x-mgw-leased", "1")
  note(metadata, {spent = lease, after = lease.units - lease.left})
end

-- The answer to a request that asked: a lease may have come with it.
local function take(headers, metadata, asked)
  local said = metadata:get(LIMITER)
  local text = said and said.lease
  if text == nil then return end
  local serial, units, cost, span = string.match(text, "^(%d+) (%d+) (%d+) (%d+)$")
  local remaining = tonumber(headers:get("x-ratelimit-remaining"))
  if serial == nil or remaining == nil then return end
  units = tonumber(units)
  local lease = {
    serial = serial, units = units, left = units, renew_at = math.floor(units / 4), cost = tonumber(cost),
    ends = asked.asked + tonumber(span) / 1000, remaining = remaining,
    limit = headers:get("x-ratelimit-limit"), reset = headers:get("x-ratelimit-reset"),
    policy = headers:get("ratelimit-policy"),
  }
  local before = held(asked.key)
  if before ~= nil and before.left > 0 then before.following = lease else hold(asked.key, lease) end
end

-- What the service would have said.
local function describe(headers, spent, after, now)
  local remaining = math.max(0, spent.remaining - after * spent.cost)
  headers:replace("x-ratelimit-limit", spent.limit)
  headers:replace("x-ratelimit-remaining", string.format("%d", remaining))
  headers:replace("x-ratelimit-reset", spent.reset)
  headers:replace("ratelimit-policy", spent.policy)
  local wait = math.max(0, math.ceil(tonumber(spent.reset) - now))
  headers:replace("ratelimit", string.format('"minute";r=%d;t=%d', remaining, wait))
end
