-- Identity without a call: if Envoy's jwt_authn verified a token and nothing else has to be asked, the caller is known
-- here and ext_authz is skipped. Whatever is unusual, and every denial, is left to the authz service: this module only
-- ever allows.
--
-- Why the token's text is read again: jwt_authn's reader takes single quotes, trailing commas and the like, and what it
-- passes on has lost nulls and the length of numbers. What authz's strict reader rejects must not pass here.
--
-- Needs: names, config (providers, tiers, version), base64url, plain_json, caller.
-- Gives: identify(settings, metadata, authorization, now).

local names, config, base64url, plain_json, caller = ...

local byte, find, lower, match, sub = string.byte, string.find, string.lower, string.match, string.sub
local is_canonical, decoded = base64url.is_canonical, base64url.decoded
local plain_object, member, new_caller = plain_json.object, plain_json.member, caller.new

local VERIFIED = names.namespace.JWT_AUTHN
local PROVIDERS, TIERS, VERSION = config.providers, config.tiers, config.version
local MAX_TOKEN, MAX_SUBJECT, MAX_KID = 8192, 256, 256
local TYPES = {["at+jwt"] = true, ["application/at+jwt"] = true}

-- A segment of a token always says the same, so it is read once a worker. Two generations, each of so many segments.
local MAX_SEGMENTS, MAX_SEGMENT = 512, 2048
local young, old, count = {}, {}, 0

-- The segment's object; false if it is not plain.
local function object_of(segment)
  local known = young[segment]
  if known ~= nil then return known end
  known = old[segment]
  if known == nil then known = plain_object(decoded(segment)) or false end
  if #segment <= MAX_SEGMENT then
    if count == MAX_SEGMENTS then young, old, count = {}, young, 0 end
    young[segment] = known
    count = count + 1
  end
  return known
end

-- A type of token that has a name of its own is that very type; any other text says nothing.
local function is_our_type(typ)
  if typ == nil then return true end
  if type(typ) ~= "string" then return false end
  typ = lower(typ)
  return sub(typ, -4) ~= "+jwt" or TYPES[typ] ~= nil
end

-- What is not understood is ignored, unless it changes what the signature means: `crit` and `b64`. Keys in a header are
-- not looked at, here or by jwt_authn.
local function is_plain_header(header, provider)
  if header.crit ~= nil or header.b64 ~= nil and header.b64 ~= true then return false end
  local kid = header.kid
  if kid ~= nil and (type(kid) ~= "string" or #kid == 0 or #kid > MAX_KID) or kid == nil and provider.needs_kid then
    return false
  end
  if provider.kids ~= nil and kid ~= nil and not provider.kids[kid] then return false end
  if not is_our_type(header.typ) or header.cty ~= nil and type(header.cty) ~= "string" then return false end
  return type(header.alg) == "string" and provider.algorithms[header.alg] ~= nil
end

-- jwt_authn's own leeway cannot be 0 (it would mean 60 s), so the times are checked again.
local function is_in_time(claims, leeway, now)
  if type(claims.exp) ~= "number" or now >= claims.exp + leeway then return false end
  if claims.nbf ~= nil and (type(claims.nbf) ~= "number" or now < claims.nbf - leeway) then return false end
  return claims.iat == nil or type(claims.iat) == "number"
end

-- jwt_authn takes two audiences for equal if they differ in their scheme or a trailing slash only; authz does not.
local function is_for_us(audience, audiences)
  if audiences == nil then return true end
  if type(audience) ~= "table" then return type(audience) == "string" and audiences[audience] ~= nil end
  local named, entries = false, 0
  for _, name in pairs(audience) do
    if type(name) ~= "string" then return false end
    named, entries = named or audiences[name] ~= nil, entries + 1
  end
  return named and entries == #audience
end

local function subject_of(claims, provider)
  local subject = member(claims, provider.subject)
  if type(subject) ~= "string" or #subject == 0 or #subject > MAX_SUBJECT then return nil end
  if byte(subject, 1) == 32 or byte(subject, -1) == 32 then return nil end
  return subject
end

local function tier_of(claims, provider)
  local tier = member(claims, provider.tier)
  if tier == nil then return provider.default_tier end
  if type(tier) ~= "string" then return nil end
  tier = lower(tier)
  return TIERS[tier] and tier or nil
end

local function holds(list, name)
  return find(list, "," .. name .. ",", 1, true) ~= nil
end

-- The caller's subject and tier, if the provider may vouch for it on this route; else nil.
local function caller_of(claims, provider, settings, now)
  if claims.iss ~= nil and type(claims.iss) ~= "string" or provider.issuer ~= nil and claims.iss ~= provider.issuer
    or claims.jti ~= nil and (type(claims.jti) ~= "string" or settings.revoked_ids)
    or not is_in_time(claims, provider.leeway, now) or not is_for_us(claims.aud, provider.audiences) then
    return nil
  end
  local revoked, providers, tiers = settings.revoked, settings.providers, settings.tiers
  if revoked ~= nil and holds(revoked, provider.name) or providers ~= nil and not holds(providers, provider.name) then
    return nil
  end
  local subject, tier = subject_of(claims, provider), tier_of(claims, provider)
  if subject == nil or tier == nil or tiers ~= nil and not holds(tiers, tier) then return nil end
  return subject, tier
end

-- The provider whose key verified the token. jwt_authn reads tokens from Authorization alone, after `Bearer `, so it is
-- the token that is read here.
local function verified_by(metadata)
  local seen = metadata:get(VERIFIED)
  if seen == nil then return nil end
  for index = 1, #PROVIDERS do
    if seen[PROVIDERS[index].name] ~= nil then return PROVIDERS[index] end
  end
  return nil
end

-- The token's caller; nil if authz has to decide. A connection that is being drained may still have a verifier with
-- keys that hold no longer.
local function identify(settings, metadata, authorization, now)
  if settings.verifier ~= VERSION then return nil end
  local provider = verified_by(metadata)
  if provider == nil or settings.ask or #authorization > MAX_TOKEN + 7 then return nil end
  local head, body, signature = match(authorization, "^Bearer ([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if head == nil or not (is_canonical(head) and is_canonical(body) and is_canonical(signature)) then return nil end
  local header, claims = object_of(head), object_of(body)
  if not header or not claims or not is_plain_header(header, provider) then return nil end
  local subject, tier = caller_of(claims, provider, settings, now)
  if subject == nil then return nil end
  return new_caller(subject, tier, provider.name .. "/" .. subject, claims.exp + provider.leeway)
end

return {identify = identify}
