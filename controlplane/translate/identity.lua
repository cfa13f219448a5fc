-- Identity without a call: where Envoy's jwt_authn verified a token and nothing else has to be asked, the caller is set
-- here and ext_authz is skipped. Anything out of the ordinary, and every refusal, is left to the authz service, so this
-- only ever says yes. PROVIDERS, TIERS and API_KEY_HEADER are written before this text by translate/identity.py.

-- Values of the last character of a segment whose unused bits are zero (RFC 4648 section 3.5), by length modulo 4.
local LAST = {[0] = "^[%w_-]$", [2] = "^[AQgw]$", [3] = "^[AEIMQUYcgkosw048]$"}
local HEADER_FIELDS = {alg = true, typ = true, kid = true, cty = true}
local MAX_TOKEN, MAX_SUBJECT = 8192, 256

local function canonical(segment)
  local last = LAST[#segment % 4]
  return last ~= nil and string.find(string.sub(segment, -1), last) ~= nil
end

-- The three segments of a bearer token that the strict reader of the authz service would read.
local function well_formed(authorization)
  if #authorization > MAX_TOKEN + 7 then return false end
  local head, body, signature = string.match(authorization, "^[Bb][Ee][Aa][Rr][Ee][Rr] ([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  return head ~= nil and canonical(head) and canonical(body) and canonical(signature)
end

local function plain_header(header)
  if type(header) ~= "table" then return false end
  for name, value in pairs(header) do
    if not HEADER_FIELDS[name] or type(value) ~= "string" then return false end
  end
  local kind = header.typ == nil and "jwt" or string.lower(header.typ)
  return header.cty == nil and (kind == "jwt" or kind == "at+jwt")
end

-- jwt_authn's own leeway cannot be 0 (it would mean 60 s), so the times are checked again.
local function in_time(claims, leeway, now)
  if type(claims.exp) ~= "number" or now >= claims.exp + leeway then return false end
  if claims.nbf ~= nil and (type(claims.nbf) ~= "number" or now < claims.nbf - leeway) then return false end
  return claims.iat == nil or type(claims.iat) == "number"
end

local function subject_of(claims, provider)
  local subject = claims[provider.subject]
  if type(subject) ~= "string" or #subject == 0 or #subject > MAX_SUBJECT then return nil end
  if not string.find(subject, "^[\33-\126][\32-\126]*$") or string.sub(subject, -1) == " " then return nil end
  return subject
end

local function tier_of(claims, provider)
  local tier = claims[provider.tier]
  if tier == nil then return provider.default_tier end
  if type(tier) ~= "string" then return nil end
  tier = string.lower(tier)
  return TIERS[tier] and tier or nil
end

local function allows(list, name)
  return list == nil or string.find("," .. list .. ",", "," .. name .. ",", 1, true) ~= nil
end

local function verified(handle, metadata, route)
  local seen = metadata:get("envoy.filters.http.jwt_authn")
  if seen == nil then return nil end
  local now = tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) / 1000
  for _, provider in ipairs(PROVIDERS) do
    local claims = seen[provider.name]
    if claims ~= nil and allows(route.providers, provider.name) and plain_header(seen[provider.name .. "/header"])
      and in_time(claims, provider.leeway, now) and (claims.jti == nil or type(claims.jti) == "string") then
      local subject, tier = subject_of(claims, provider), tier_of(claims, provider)
      if subject ~= nil and tier ~= nil and allows(route.tiers, tier) then return provider.name, subject, tier end
      return nil
    end
  end
  return nil
end

local function identify(handle, headers)
  local settings = handle:metadata()
  local auth = settings:get("auth")
  if auth == nil or settings:get("ask") then return end
  if headers:get(API_KEY_HEADER) ~= nil then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local authorization = headers:get("authorization")
  if authorization == nil then
    if auth == "optional" and settings:get("tiers") == nil then
      metadata:set("envoy.filters.http.ext_authz", "tier", "anonymous")
      metadata:set("mgw", "identified", true)
    end
    return
  end
  if not well_formed(authorization) then return end
  local route = {providers = settings:get("providers"), tiers = settings:get("tiers")}
  local provider, subject, tier = verified(handle, metadata, route)
  if provider == nil then return end
  headers:replace("x-user-id", subject)
  headers:replace("x-user-tier", tier)
  metadata:set("envoy.filters.http.ext_authz", "subject", subject)
  metadata:set("envoy.filters.http.ext_authz", "tier", tier)
  metadata:set("envoy.filters.http.ext_authz", "caller", provider .. "/" .. subject)
  metadata:set("mgw", "identified", true)
end

