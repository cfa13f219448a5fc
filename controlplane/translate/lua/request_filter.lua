-- The request filter: before anything else looks at a request it gets one path and two valid ids, and the caller if
-- this worker knows it.
--
-- Needs: names, config (api_key_header, verified_here, in_quotas) and the modules below. decision_cache and leases are
-- nil where they are turned off.
-- Gives: envoy_on_request(handle), envoy_on_response(handle), which Envoy calls.

local names, config, worker, route_settings, in_flight, path, request_ids, caller, decision_cache, leases = ...

local find, sub, match, gmatch = string.find, string.sub, string.match, string.gmatch
local byte, lower = string.byte, string.lower

local header, mark, key = names.header, names.mark, names.key
local BAD_REQUEST, BAD_PATH, IDENTITY, COUNTER = header.BAD_REQUEST, mark.PATH, header.IDENTITY, header.COUNTER
local ADDRESS = header.ADDRESS
local KNOWN, UNVERIFIED, ERROR = mark.KNOWN, mark.UNVERIFIED, names.response_header.ERROR
local GATEWAY, QUERY_KEY, PATH_KEY = names.namespace.GATEWAY, key.QUERY, key.PATH
local API_KEY_HEADER, VERIFIED_HERE, IN_QUOTAS = config.api_key_header, config.verified_here, config.in_quotas

local is_plain, normalised, masked = path.is_plain, path.normalised, path.masked
local accept_ids = request_ids.accept
local now_seconds, settings_of = worker.now_seconds, route_settings.of
local set_known, charge_to, ANONYMOUS = caller.set_known, caller.charge_to, caller.ANONYMOUS
local add_in_flight, take_in_flight, is_any_in_flight = in_flight.add, in_flight.take, in_flight.is_any
local recall, spend = decision_cache and decision_cache.recall, leases and leases.spend

-- The path in its one spelling. nil: the request is rejected.
local function clean_path(handle, headers, raw)
  local mark_at = find(raw, "?", 1, true)
  local plain = mark_at and sub(raw, 1, mark_at - 1) or raw
  if mark_at and mark_at < #raw then
    handle:streamInfo():dynamicMetadata():set(GATEWAY, QUERY_KEY, masked(sub(raw, mark_at + 1)))
  end
  if find(plain, "eyJ", 1, true) then handle:streamInfo():dynamicMetadata():set(GATEWAY, PATH_KEY, masked(plain)) end
  if is_plain(plain) then return plain end
  local clean = normalised(plain)
  if clean == plain then return plain end
  if clean == nil then
    headers:replace(BAD_REQUEST, BAD_PATH) -- the first route makes it a 400, after CORS set its headers
  else
    headers:replace(":path", mark_at and clean .. sub(raw, mark_at) or clean)
  end
  handle:clearRouteCache()
  return clean
end

-- A possible preflight is answered before the limiter and costs nothing, so it spends nothing.
local function is_decided_here(headers, metadata, limits, account, now)
  return headers:get(":method") ~= "OPTIONS" and spend(headers, metadata, limits, account, now)
end

-- No credentials, and none needed: the caller is anonymous whoever decides. Its leases are its address's.
local function anonymous_caller(handle, headers, settings)
  if not settings.anonymous then return end
  if VERIFIED_HERE then headers:replace(IDENTITY, KNOWN) end
  if not (spend and settings.limits) then return end
  local stream = handle:streamInfo()
  local address = match(stream:downstreamRemoteAddress(), "^(.*):%d+$")
  if address == nil then return end
  is_decided_here(headers, stream:dynamicMetadata(), settings.limits, ANONYMOUS .. address, now_seconds(handle))
end

local function known_caller(handle, headers, settings, who, now)
  set_known(headers, who)
  if IN_QUOTAS then return charge_to(headers, nil, who) end
  local metadata = handle:streamInfo():dynamicMetadata()
  if spend and settings.limits and is_decided_here(headers, metadata, settings.limits, who.account, now) then return end
  charge_to(headers, metadata, who)
end

-- For authz, which counts wrong keys by address.
local function client_address(handle)
  local address = handle:streamInfo():downstreamRemoteAddress()
  return match(address, "^%[?(.-)%]?:%d+$") or address
end

-- Sets the caller if this worker knows it, and spends from its lease. Who is not known here is verified by Envoy if it
-- has the keys, else authz is asked.
local function identify(handle, headers)
  local settings = settings_of(handle)
  if settings == nil then return end
  if settings.counter ~= nil then headers:replace(COUNTER, settings.counter) end
  if settings.auth == nil then return end
  if headers:get(API_KEY_HEADER) ~= nil then return headers:replace(ADDRESS, client_address(handle)) end
  local authorization = headers:get("authorization")
  if authorization == nil then return anonymous_caller(handle, headers, settings) end
  local now = recall and now_seconds(handle)
  local who = recall and recall(settings.policy, authorization, now)
  if who then return known_caller(handle, headers, settings, who, now) end
  if VERIFIED_HERE then headers:replace(IDENTITY, UNVERIFIED) end
  if recall then
    local asked = {policy = settings.policy, authorization = authorization, epoch = settings.epoch}
    add_in_flight(handle:streamInfo():dynamicMetadata(), asked)
  end
end

local function on_request(handle)
  local headers = handle:headers()
  accept_ids(headers)
  local raw = headers:get(":path")
  if raw == nil then -- CONNECT: its body has no end, and the filters below would wait for one
    handle:respond({[":status"] = "400"}, "")
    return
  end
  if clean_path(handle, headers, raw) ~= nil then identify(handle, headers) end
end

-- What the request left for its response.
local function finish(handle, headers, metadata, what)
  if what.lease ~= nil then
    if headers:get(ERROR) == "PAYLOAD_TOO_LARGE" then
      leases.give_back(what)
    else
      leases.describe(headers, what, now_seconds(handle))
    end
  elseif what.over_limit ~= nil then
    leases.describe_over_limit(headers, what)
  elseif what.account ~= nil then
    leases.read_response(headers, metadata, what)
  else
    decision_cache.remember(metadata, what, now_seconds(handle))
  end
end

-- Headers that an upstream names in Connection are for this hop alone (RFC 9110, section 7.6.1). Envoy removes only
-- Connection itself.
local function remove_hop_by_hop(headers)
  local named = headers:get("connection")
  if named == nil then return end
  for name in gmatch(lower(named), "[^,%s]+") do
    if name ~= "content-length" and name ~= "transfer-encoding" and byte(name) ~= 58 then headers:remove(name) end
  end
end

local function on_response(handle)
  local headers = handle:headers()
  if is_any_in_flight() then
    local metadata = handle:streamInfo():dynamicMetadata()
    local what = take_in_flight(metadata)
    if what ~= nil then finish(handle, headers, metadata, what) end -- nil: another request's response is awaited
  end
  remove_hop_by_hop(headers)
end

return {envoy_on_request = on_request, envoy_on_response = on_response}
