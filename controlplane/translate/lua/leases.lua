-- Leases: requests that the rate-limit service has charged in advance. They are prepaid: they pass without asking it.
--
-- A lease belongs to this worker, to one account (a caller and its tier, or an address), and to the limits that held.
-- It ends a moment after it was asked for. A request that no lease pays for asks the service, and reports what became
-- of the last lease, so that the service can size the next.
--
-- An account that is over its limit is kept in the same way: the service said how long a request would have to wait.
-- Until then, or for OVER_LIMIT_SECONDS if that is sooner, requests are decided here.
--
-- How long anything is kept, and the waits that are told, are intervals of this worker's clock. X-RateLimit-Reset alone
-- is a time, of the store's clock, as the service said it. Once this clock was set back nothing tells how old a thing
-- is, so all of it is forgotten.
--
-- Needs: names, in_flight, reject.
-- Gives: spend(headers, metadata, limits, caller_account, now). It leaves one of three things in flight, each with its
-- own functions for the response: describe(headers, what, now); describe_over_limit(headers, what);
-- read_response(headers, metadata, asked).

local names, in_flight, reject = ...

local remember, reject_over_limit = in_flight.add, reject.over_limit
local header, response, key = names.header, names.response_header, names.key
local PREPAID, IS_PREPAID = header.PREPAID, names.mark.PREPAID
local LEASE_REPORT, OVER_LIMIT = header.LEASE_REPORT, header.OVER_LIMIT
local LIMIT, REMAINING, RESET, STATE, POLICY =
  response.LIMIT, response.REMAINING, response.RESET, response.STATE, response.POLICY
local RATE_LIMIT, RULE, LEASE, OVER_LIMIT_MS = names.namespace.RATE_LIMIT, key.RULE, key.LEASE, key.OVER_LIMIT_MS

local WORKER = string.match(tostring({}), "0x(%x+)") .. string.format("%x", os.time() % 65536)
local MAX_ACCOUNTS, MAX_REPLICAS = 20000, 8
local OVER_LIMIT_SECONDS = 0.1 -- as long may an operator's reset take to be noticed
local LEASE_SECONDS = 0.1 -- a lease that was asked for earlier has ended

-- Accounts by the route's limits and the caller, in two generations as in the decision cache. An account has the lease
-- in use, the next one if it was granted early, and the last grant of each replica of the service, the latest last.
local young, old, count = {}, {}, 0
local latest = 0

local function forget_after_a_step_back(now)
  if now < latest then young, old, count = {}, {}, 0 end
  latest = now
end

local function account_of(name)
  local account = young[name]
  if account ~= nil then return account end
  account = old[name] or {grants = {}, left = 0, ends = 0, asked = 0, awaited_since = 0}
  if count >= MAX_ACCOUNTS then young, old, count = {}, young, 0 end
  young[name], count = account, count + 1
  return account
end

-- The account's grant of this replica, now the latest. `spent` counts over all leases of the replica.
local function grant_of(account, replica)
  local grants = account.grants
  local found = {replica = replica, spent = 0}
  for at, grant in ipairs(grants) do
    if grant.replica == replica then
      found = table.remove(grants, at)
      break
    end
  end
  if #grants == MAX_REPLICAS then table.remove(grants, 1) end -- that replica will take this worker for a new one
  grants[#grants + 1] = found
  return found
end

local function use(account, lease)
  account.next = nil
  account.left, account.ends, account.lease = lease.requests, lease.ends, lease
  account.renew_at = math.floor(lease.requests / 2)
end

-- A caller that asks less often than a lease lasts has no use for one, and asks without a report: that is cheaper. A
-- busy one wants a lease, unless one may be on its way: a second one, from another replica, would end unspent.
local function ask(headers, metadata, account, now)
  local is_busy = now - account.asked < LEASE_SECONDS
  account.asked = now
  if not is_busy then return end
  local waited = now - account.awaited_since
  local is_wanted = waited >= LEASE_SECONDS or waited < 0 -- a clock that was set back makes nobody wait
  if is_wanted then account.awaited_since = now end
  local report = WORKER .. (is_wanted and ".1" or ".0")
  for _, grant in ipairs(account.grants) do
    report = report .. ";" .. grant.replica .. "." .. grant.serial .. "." .. grant.spent
  end
  headers:replace(LEASE_REPORT, report)
  remember(metadata, {account = account, asked = now, is_wanted = is_wanted})
end

local function repeat_over_limit(headers, metadata, over_limit, now)
  local wait = math.max(1, math.ceil(over_limit.passes - now))
  headers:replace(OVER_LIMIT, string.format("%d", wait))
  reject_over_limit(headers)
  metadata:set(RATE_LIMIT, RULE, over_limit.rule)
  remember(metadata, {over_limit = over_limit, wait = wait})
end

-- Decides the request here if it is prepaid or over limit, and returns true. Else returns false: the service is asked.
local function spend(headers, metadata, limits, caller_account, now)
  forget_after_a_step_back(now)
  local account = account_of(limits .. caller_account)
  local over_limit = account.over_limit
  if over_limit ~= nil then
    if now < over_limit.ends then
      account.asked = now -- a caller that keeps retrying counts as busy
      repeat_over_limit(headers, metadata, over_limit, now)
      return true
    end
    account.over_limit = nil
  end
  if account.left == 0 or now >= account.ends then
    local following = account.next
    if following == nil or now >= following.ends then
      account.left = 0
      ask(headers, metadata, account, now)
      return false
    end
    use(account, following)
  end
  if account.left == account.renew_at then
    account.renew_at = -1
    ask(headers, metadata, account, now)
    return false
  end
  local lease = account.lease
  account.left, lease.grant.spent = account.left - 1, lease.grant.spent + 1
  headers:replace(PREPAID, IS_PREPAID)
  remember(metadata, {account = account, lease = lease, spent = lease.requests - account.left})
  return true
end

local function read_over_limit(headers, said, asked)
  local seconds = said[OVER_LIMIT_MS] / 1000
  asked.account.over_limit = {
    rule = said[RULE], passes = asked.asked + seconds, ends = asked.asked + math.min(seconds, OVER_LIMIT_SECONDS),
    limit = headers:get(LIMIT), reset = headers:get(RESET), policy = headers:get(POLICY),
    kind = string.match(headers:get(STATE) or "", '^"%a+"') or '"minute"',
  }
end

local function read_lease(headers, text, asked)
  local replica, serial, requests, hits, milliseconds = string.match(text, "^(%x+) (%d+) (%d+) (%d+) (%d+)$")
  local remaining = tonumber(headers:get(REMAINING))
  local seconds = string.match(headers:get(STATE) or "", '"minute"[^,]*;t=(%d+)')
  if serial == nil or remaining == nil or seconds == nil then return end
  local account = asked.account
  local grant = grant_of(account, replica)
  grant.serial = serial
  local lease = {
    grant = grant, requests = tonumber(requests), hits = tonumber(hits),
    asked = asked.asked, ends = asked.asked + tonumber(milliseconds) / 1000, seconds_to_reset = tonumber(seconds),
    remaining = remaining, limit = headers:get(LIMIT), reset = headers:get(RESET), policy = headers:get(POLICY),
  }
  if account.left > 0 then
    account.next = lease
  else
    use(account, lease)
  end
end

-- The response to a request that asked may bring a lease, or say that the account is over its limit for a while.
local function read_response(headers, metadata, asked)
  if asked.is_wanted then asked.account.awaited_since = 0 end
  local said = metadata:get(RATE_LIMIT)
  if said == nil then return end
  if said[OVER_LIMIT_MS] ~= nil then return read_over_limit(headers, said, asked) end
  if said[LEASE] ~= nil then read_lease(headers, said[LEASE], asked) end
end

local function set_headers(headers, terms, kind, remaining, wait)
  headers:replace(LIMIT, terms.limit)
  headers:replace(REMAINING, string.format("%d", remaining))
  headers:replace(RESET, terms.reset)
  headers:replace(POLICY, terms.policy)
  headers:replace(STATE, string.format("%s;r=%d;t=%d", kind, remaining, wait))
end

-- The headers that the service would have sent with a prepaid request's response.
local function describe(headers, what, now)
  local lease = what.lease
  local remaining = math.max(0, lease.remaining - what.spent * lease.hits)
  local passed = math.max(0, now - lease.asked)
  set_headers(headers, lease, '"minute"', remaining, math.max(0, math.ceil(lease.seconds_to_reset - passed)))
end

-- The same for a request that is over limit.
local function describe_over_limit(headers, what)
  set_headers(headers, what.over_limit, what.over_limit.kind, 0, what.wait)
end

return {
  spend = spend, read_response = read_response,
  describe = describe, describe_over_limit = describe_over_limit,
}
