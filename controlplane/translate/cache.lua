-- The decision cache: a token that authz allowed a moment ago is not asked about again. What is kept is authz's decision,
-- for CACHE_SECONDS at most and never past the token's own end; the key holds the route's conditions and the epoch of the
-- policy, so a changed policy or a revocation finds nothing. Refusals and anonymous callers are never kept.
-- CACHE_SECONDS, CACHE_ENTRIES and API_KEY_HEADER are written before this text by translate/decisions.py.

local AUTHZ_METADATA = "envoy.filters.http.ext_authz"
local LONGEST = 8300

-- Two generations: when the younger is full it becomes the older, and what nobody asked for meanwhile is forgotten.
local young, old, count = {}, {}, 0

local function keep(key, entry)
  if count >= CACHE_ENTRIES then young, old, count = {}, young, 0 end
  if young[key] == nil then count = count + 1 end
  young[key] = entry
end

local function kept(key, now)
  local entry = young[key]
  if entry == nil then
    entry = old[key]
    if entry == nil then return nil end
    keep(key, entry)
  end
  return now < entry.ends and entry or nil
end

local function now_seconds(handle)
  return tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) / 1000
end

-- Sets the caller from the cache; false where authz has to be asked.
local function recall(handle, headers)
  local authorization = headers:get("authorization")
  if authorization == nil or #authorization > LONGEST then return false end
  local settings = handle:metadata()
  local policy = settings:get("policy")
  if policy == nil or headers:get(API_KEY_HEADER) ~= nil then return false end
  local key = policy .. authorization
  local metadata = handle:streamInfo():dynamicMetadata()
  local entry = kept(key, now_seconds(handle))
  if entry == nil then
    metadata:set("mgw", "cache_key", key)
    metadata:set("mgw", "epoch", settings:get("epoch"))
    return false
  end
  headers:replace("x-user-id", entry.subject)
  headers:replace("x-user-tier", entry.tier)
  metadata:set(AUTHZ_METADATA, "subject", entry.subject)
  metadata:set(AUTHZ_METADATA, "tier", entry.tier)
  metadata:set(AUTHZ_METADATA, "caller", entry.caller)
  metadata:set("mgw", "identified", true)
  return true
end

-- On the answer's way back: keep what authz said, if it said it under the policy that this route is of.
local function remember(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local own = metadata:get("mgw")
  if own == nil or own.cache_key == nil then return end
  local said = metadata:get(AUTHZ_METADATA)
  if said == nil or said.caller == nil or said["until"] == nil or said.epoch ~= own.epoch then return end
  local ends = math.min(said["until"], now_seconds(handle) + CACHE_SECONDS)
  keep(own.cache_key, {subject = said.subject, tier = said.tier, caller = said.caller, ends = ends})
end

