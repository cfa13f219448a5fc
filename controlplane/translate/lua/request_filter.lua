-- The request filter: before anything else looks at a request it gets one path and two valid ids, and the caller if
-- this worker knows it.
--
-- Needs: names, config (api_key_header, verified_here, in_quotas) and the modules below. forwarded, decision_cache and
-- leases are nil where they are turned off.
-- Gives: envoy_on_request(handle), envoy_on_response(handle), which Envoy calls.

local names, config, worker, route_settings, in_flight, request_path, request_ids, reject, hop_by_hop,
  address, caller, forwarded, decision_cache, leases = ...

local IDENTITY, COUNTER, UNFIT = names.header.IDENTITY, names.header.COUNTER, names.header.UNFIT
local AUTHZ, REASON, mark = names.namespace.AUTHZ, names.key.REASON, names.mark
local ADDRESS, NO_TOKEN, FIELDS = names.header.ADDRESS, mark.NO_TOKEN, mark.FIELDS
local KNOWN, UNVERIFIED = mark.KNOWN, mark.UNVERIFIED
local API_KEY_HEADER, VERIFIED_HERE, IN_QUOTAS = config.api_key_header, config.verified_here, config.in_quotas

local accept_ids, is_usual_path = request_ids.accept, request_path.is_usual
local show, clean, reject_request = request_path.show, request_path.clean, request_path.reject
local reject_fields, reject_body, reject_no_token = reject.fields, reject.body, reject.no_token
local now_seconds, settings_of = worker.now_seconds, route_settings.of
local set_known, charge_to, ANONYMOUS = caller.set_known, caller.charge_to, caller.ANONYMOUS
local NETWORK, network_of = names.header.NETWORK, address.network_of
local remove_hop_by_hop = hop_by_hop.remove
local add_in_flight, take_in_flight, is_any_in_flight = in_flight.add, in_flight.take, in_flight.is_any
local check_forwarded = forwarded and forwarded.check
local recall, spend = decision_cache and decision_cache.recall, leases and leases.spend

-- A possible preflight is answered before the limiter and costs nothing, so it spends nothing.
local function is_decided_here(headers, metadata, limits, account, now)
  return headers:get(":method") ~= "OPTIONS" and spend(headers, metadata, limits, account, now)
end

-- Whom the limiters charge where nobody is verified.
local function name_network(handle, headers)
  local network = network_of(handle:streamInfo():downstreamRemoteAddress())
  headers:replace(NETWORK, network)
  return network
end

-- No credentials. Where one is required, authz need not be asked. Where none is, the caller is anonymous whoever
-- decides; its leases are its network's.
local function anonymous_caller(handle, headers, settings)
  if settings.auth == "required" then
    handle:streamInfo():dynamicMetadata():set(AUTHZ, REASON, NO_TOKEN)
    return reject_no_token(headers)
  end
  local network = name_network(handle, headers)
  if not settings.anonymous then return end
  if VERIFIED_HERE then headers:replace(IDENTITY, KNOWN) end
  if not (spend and settings.limits) then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  is_decided_here(headers, metadata, settings.limits, ANONYMOUS .. network, now_seconds(handle))
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
  local peer = handle:streamInfo():downstreamRemoteAddress()
  return string.match(peer, "^%[?(.-)%]?:%d+$") or peer
end

-- Rejects what the headers alone say is too large or has no credentials. Sets the caller if this worker knows it, and
-- spends from its lease. Who is not known here is verified by Envoy if it has the keys, else authz is asked.
local function identify(handle, headers)
  local settings = settings_of(handle)
  if settings == nil then return end
  local length = headers:get("content-length")
  if length ~= nil and tonumber(length) > tonumber(settings.max_body) then return reject_body(headers) end
  if settings.counter ~= nil then headers:replace(COUNTER, settings.counter) end
  if settings.auth == nil then return name_network(handle, headers) end
  if headers:get(API_KEY_HEADER) ~= nil then
    headers:replace(ADDRESS, client_address(handle))
    return name_network(handle, headers)
  end
  local authorization = headers:get("authorization")
  if authorization == nil then return anonymous_caller(handle, headers, settings) end
  local now = recall and now_seconds(handle)
  local who = recall and recall(settings.policy, authorization, now)
  if who then return known_caller(handle, headers, settings, who, now) end
  name_network(handle, headers)
  if VERIFIED_HERE then headers:replace(IDENTITY, UNVERIFIED) end
  if recall then
    local asked = {policy = settings.policy, authorization = authorization, epoch = settings.epoch}
    add_in_flight(handle:streamInfo():dynamicMetadata(), asked)
  end
end

local function refuse(handle, headers, unfit)
  if unfit == FIELDS then return reject_fields(headers) end
  return reject_request(handle, headers)
end

local function on_request(handle)
  local headers = handle:headers()
  accept_ids(headers)
  if check_forwarded then check_forwarded(handle, headers) end
  local raw = headers:get(":path")
  if raw == nil then -- CONNECT: its body has no end, and the filters below would wait for one
    handle:respond({[":status"] = "400"}, "")
    return
  end
  local is_usual, plain, query, is_shown = is_usual_path(raw)
  if not is_usual then plain, query, is_shown = show(handle, raw) end
  local unfit = headers:get(UNFIT)
  if unfit ~= nil then return refuse(handle, headers, unfit) end
  if is_usual or clean(handle, headers, plain, query, is_shown) then identify(handle, headers) end
end

-- What the request left for its response.
local function finish(handle, headers, metadata, what)
  if what.lease ~= nil then
    leases.describe(headers, what, now_seconds(handle))
  elseif what.over_limit ~= nil then
    leases.describe_over_limit(headers, what)
  elseif what.account ~= nil then
    leases.read_response(headers, metadata, what)
  else
    decision_cache.remember(metadata, what, now_seconds(handle))
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
