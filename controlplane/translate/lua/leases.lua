-- Leases: requests that the rate-limit service has charged ahead, spent here without asking it. A lease belongs to this
-- worker, to one caller and tier, and to the numbers that held; it ends a moment after it was asked for. What is not
-- covered asks, and says what became of the last lease, so that the service can size the next.
--
-- A refusal is kept in the same way: the service said how long a request would have to wait, and until then, or for
-- REFUSED_SECONDS if that is sooner, the caller's requests are refused here.

local LIMITER = "envoy.filters.http.ratelimit"
local WORKER = string.match(tostring({}), "0x(%x+)") .. string.format("%x", os.time() % 65536)
local MAX_LEASES, MAX_REPLICAS = 20000, 8
local REFUSED_SECONDS = 0.1 -- an operator who gives something back waits as long before the answer
local LEASE_SECONDS = 0.1 -- what was asked for earlier has ended

-- By the route's limits and the caller, in two generations as in the decision cache. An account has the lease in use, the
-- next, which was asked for in time, and what was taken of each replica of the service, the latest last.
local young, old, count = {}, {}, 0

local function account_of(key)
  local account = young[key]
  if account ~= nil then return account end
  account = old[key] or {taken = {}, left = 0, ends = 0, asked = 0, awaited = 0}
  if count >= MAX_LEASES then young, old, count = {}, young, 0 end
  young[key], count = account, count + 1
  return account
end

-- What was taken of the replica that granted a lease.
local function taken_of(account, replica)
  local all = account.taken
  local known = {replica = replica, spent = 0}
  for at, each in ipairs(all) do
    if each.replica == replica then
      known = table.remove(all, at)
      break
    end
  end
  if #all == MAX_REPLICAS then table.remove(all, 1) end -- that one will take this worker for a new one
  all[#all + 1] = known
  return known
end

local function begin(account, lease)
  account.following = nil
  account.left, account.ends, account.terms = lease.units, lease.ends, lease
  account.renew_at = math.floor(lease.units / 2)
end

-- Who asks more seldom than a lease lasts has no use for one, and asks as if there were none: that is cheaper.
-- Others want one, unless one may be on its way: from another replica it would come beside that one, and end unspent.
local function ask(headers, metadata, account, now)
  local is_busy = now - account.asked < LEASE_SECONDS
  account.asked = now
  if not is_busy then return end
  local wait = account.awaited - now
  local wanted = wait <= 0 or wait > LEASE_SECONDS -- a clock that was set back makes nobody wait
  if wanted then account.awaited = now + LEASE_SECONDS end
  local report = WORKER .. (wanted and ".1" or ".0")
  for _, each in ipairs(account.taken) do
    report = report .. ";" .. each.replica .. "." .. each.serial .. "." .. each.spent
  end
  headers:replace("x-mgw-lease", report)
  note(metadata, {account = account, asked = now, wanted = wanted})
end

local function refuse(headers, metadata, refusal, now)
  local wait = math.max(1, math.ceil(refusal.passes - now))
  headers:replace("x-mgw-refused", string.format("%d", wait))
  metadata:set(LIMITER, "rule", refusal.rule)
  note(metadata, {refusal = refusal, wait = wait})
end

-- Lets the request pass or refuses it without asking, or notes that it asks; tells which.
local function spend(headers, metadata, limits, charged, now)
  local account = account_of(limits .. charged)
  if account.refusal ~= nil then
    if now < account.refusal.ends then
      account.asked = now -- who goes on is busy when it ends
      refuse(headers, metadata, account.refusal, now)
      return true
    end
    account.refusal = nil
  end
  if account.left == 0 or now >= account.ends then
    local following = account.following
    if following == nil or now >= following.ends then
      account.left = 0
      ask(headers, metadata, account, now)
      return false
    end
    begin(account, following)
  end
  if account.left == account.renew_at then
    account.renew_at = -1
    ask(headers, metadata, account, now)
    return false
  end
  local terms = account.terms
  account.left, terms.of.spent = account.left - 1, terms.of.spent + 1
  headers:replace("x-mgw-leased", "1")
  note(metadata, {account = account, spent = terms, after = terms.units - account.left})
  return true
end

local function take_refusal(headers, said, asked)
  local seconds = said.refused / 1000
  asked.account.refusal = {
    rule = said.rule, passes = asked.asked + seconds, ends = asked.asked + math.min(seconds, REFUSED_SECONDS),
    limit = headers:get("x-ratelimit-limit"), reset = headers:get("x-ratelimit-reset"),
    policy = headers:get("ratelimit-policy"), kind = string.match(headers:get("ratelimit") or "", '^"%a+"') or '"minute"',
  }
end

-- The answer to a request that asked: a lease may have come with it, or a refusal that holds for a while.
local function take(headers, metadata, asked)
  if asked.wanted then asked.account.awaited = 0 end
  local said = metadata:get(LIMITER)
  if said ~= nil and said.refused ~= nil then return take_refusal(headers, said, asked) end
  local text = said and said.lease
  if text == nil then return end
  local replica, serial, units, cost, span = string.match(text, "^(%x+) (%d+) (%d+) (%d+) (%d+)$")
  local remaining = tonumber(headers:get("x-ratelimit-remaining"))
  if serial == nil or remaining == nil then return end
  local account = asked.account
  local of = taken_of(account, replica)
  of.serial = serial
  local lease = {
    of = of, units = tonumber(units), cost = tonumber(cost), ends = asked.asked + tonumber(span) / 1000,
    remaining = remaining, limit = headers:get("x-ratelimit-limit"), reset = headers:get("x-ratelimit-reset"),
    policy = headers:get("ratelimit-policy"),
  }
  if account.left > 0 then
    account.following = lease
  else
    begin(account, lease)
  end
end

-- The request was refused before the limiter, and no service saw it. Its unit can be spent while the lease is in use; it
-- stays told as spent.
local function give_back(what)
  local account = what.account
  if account.terms == what.spent and account.left > 0 then account.left = account.left + 1 end
end

local function tell(headers, terms, kind, remaining, wait)
  headers:replace("x-ratelimit-limit", terms.limit)
  headers:replace("x-ratelimit-remaining", string.format("%d", remaining))
  headers:replace("x-ratelimit-reset", terms.reset)
  headers:replace("ratelimit-policy", terms.policy)
  headers:replace("ratelimit", string.format("%s;r=%d;t=%d", kind, remaining, wait))
end

-- What the service would have said.
local function describe(headers, spent, after, now)
  local remaining = math.max(0, spent.remaining - after * spent.cost)
  tell(headers, spent, '"minute"', remaining, math.max(0, math.ceil(tonumber(spent.reset) - now)))
end

local function describe_refusal(headers, what)
  tell(headers, what.refusal, what.refusal.kind, 0, what.wait)
end
