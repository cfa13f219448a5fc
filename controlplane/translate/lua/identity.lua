-- Identity without a call: where Envoy's jwt_authn verified a token and nothing else has to be asked, the caller is set
-- here and ext_authz is skipped. Anything out of the ordinary, and every refusal, is left to the authz service, so this
-- only ever says yes. PROVIDERS and TIERS are written before this text by translate/identity.py.
--
-- Why the token's text is read again: jwt_authn's reader takes single quotes, trailing commas and the like, and what it
-- hands on has lost nulls and how long a number was. What authz's strict reader would refuse must not pass here.

local byte, char, concat, find, lower, match, sub =
  string.byte, string.char, table.concat, string.find, string.lower, string.match, string.sub
local floor = math.floor

local VERIFIED = "envoy.filters.http.jwt_authn"
local MAX_TOKEN, MAX_SUBJECT, MAX_KID = 8192, 256, 256
local MAX_DEPTH, MAX_CONTAINERS, MAX_NUMBER = 8, 64, 15 -- less than authz takes: plain tokens have less
local HEADER_FIELDS = {alg = true, typ = true, cty = true, kid = true, x5t = true, ["x5t#S256"] = true}
local TYPES = {["jwt"] = true, ["at+jwt"] = true, ["application/jwt"] = true, ["application/at+jwt"] = true}

-- Base64url (RFC 4648 section 5): the value of each character's code.
local DIGIT = {}
for value = 0, 63 do
  DIGIT[byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", value + 1)] = value
end

-- The last character's unused bits are zero (section 3.5), and the length is possible.
local function canonical(segment)
  local rest = #segment % 4
  return rest == 0 or rest == 2 and DIGIT[byte(segment, -1)] % 16 == 0 or rest == 3 and DIGIT[byte(segment, -1)] % 4 == 0
end

local pieces = {}

-- Of text that is canonical, without a character that is none.
local function decoded(segment)
  local count, length = 0, #segment
  for at = 1, length - 3, 4 do
    local a, b, c, d = byte(segment, at, at + 3)
    b, c = DIGIT[b], DIGIT[c]
    count = count + 1
    pieces[count] = char(DIGIT[a] * 4 + floor(b / 16), b % 16 * 16 + floor(c / 4), c % 4 * 64 + DIGIT[d])
  end
  local rest = length % 4
  if rest > 0 then
    local a, b, c = byte(segment, length - rest + 1, length)
    b = DIGIT[b]
    count = count + 1
    pieces[count] = char(DIGIT[a] * 4 + floor(b / 16))
    if rest == 3 then pieces[count] = pieces[count] .. char(b % 16 * 16 + floor(DIGIT[c] / 4)) end
  end
  return concat(pieces, "", 1, count)
end

-- A reader of plain JSON: printable ASCII without escapes, short numbers, no null, no name twice. What is not plain may
-- still be right; then it is nil, and authz is asked.
local PLAIN = '^"([^%c"\\\128-\255]*)"[ \t\r\n]*()'
local value_at

local function number_at(text, at)
  local digits, after = match(text, "^(%-?%d+%.?%d*)[ \t\r\n]*()", at)
  if digits == nil or #digits > MAX_NUMBER or find(digits, "^%-?0%d") or byte(digits, -1) == 46 then return nil end
  return tonumber(digits), after
end

local function object_at(text, at, depth, budget)
  local members = {}
  at = match(text, "^{[ \t\r\n]*()", at)
  if byte(text, at) == 125 then return members, match(text, "^}[ \t\r\n]*()", at) end
  while true do
    local name, value
    name, at = match(text, PLAIN, at)
    if name == nil or members[name] ~= nil then return nil end
    at = match(text, "^:[ \t\r\n]*()", at)
    if at == nil then return nil end
    value, at = value_at(text, at, depth, budget)
    if value == nil then return nil end
    members[name] = value
    local mark = byte(text, at)
    if mark == 125 then return members, match(text, "^}[ \t\r\n]*()", at) end
    if mark ~= 44 then return nil end
    at = match(text, "^,[ \t\r\n]*()", at)
  end
end

local function array_at(text, at, depth, budget)
  local items, count = {}, 0
  at = match(text, "^%[[ \t\r\n]*()", at)
  if byte(text, at) == 93 then return items, match(text, "^%][ \t\r\n]*()", at) end
  while true do
    count = count + 1
    items[count], at = value_at(text, at, depth, budget)
    if items[count] == nil then return nil end
    local mark = byte(text, at)
    if mark == 93 then return items, match(text, "^%][ \t\r\n]*()", at) end
    if mark ~= 44 then return nil end
    at = match(text, "^,[ \t\r\n]*()", at)
  end
end

-- The value and where the text goes on; nil where it is not plain.
function value_at(text, at, depth, budget)
  local mark = byte(text, at)
  if mark == 34 then return match(text, PLAIN, at) end
  if mark == 123 or mark == 91 then
    budget.containers = budget.containers - 1
    if depth == 0 or budget.containers == 0 then return nil end
    if mark == 123 then return object_at(text, at, depth - 1, budget) end
    return array_at(text, at, depth - 1, budget)
  end
  if mark == 116 or mark == 102 then
    local word, after = match(text, "^(%a+)[ \t\r\n]*()", at)
    if word == "true" or word == "false" then return word == "true", after end
    return nil
  end
  return number_at(text, at)
end

local function plain_object(segment)
  local text = decoded(segment)
  local start = match(text, "^[ \t\r\n]*(){")
  if start == nil then return nil end
  local members, stop = value_at(text, start, MAX_DEPTH, {containers = MAX_CONTAINERS})
  return stop == #text + 1 and members or nil
end

-- What text says never changes, so it is read once a worker: two generations, each of so many texts.
local MAX_READ, MAX_REMEMBERED = 512, 2048
local young, old, remembered = {}, {}, 0

local function object_of(segment)
  local known = young[segment]
  if known ~= nil then return known end
  known = old[segment]
  if known == nil then known = plain_object(segment) or false end
  if #segment <= MAX_REMEMBERED then
    if remembered == MAX_READ then young, old, remembered = {}, young, 0 end
    young[segment] = known
    remembered = remembered + 1
  end
  return known
end

local function is_plain_header(header, provider)
  for name in pairs(header) do
    if not HEADER_FIELDS[name] then return false end
  end
  local kid = header.kid
  if kid ~= nil and (type(kid) ~= "string" or #kid == 0 or #kid > MAX_KID) or kid == nil and provider.needs_kid then
    return false
  end
  if provider.kids ~= nil and kid ~= nil and not provider.kids[kid] then return false end
  if header.typ ~= nil and not (type(header.typ) == "string" and TYPES[lower(header.typ)]) then return false end
  if header.cty ~= nil and not (type(header.cty) == "string" and lower(header.cty) == "jwt") then return false end
  return type(header.alg) == "string" and provider.algorithms[header.alg] ~= nil
end

-- jwt_authn's own leeway cannot be 0 (it would mean 60 s), so the times are checked again.
local function is_in_time(claims, leeway, now)
  if type(claims.exp) ~= "number" or now >= claims.exp + leeway then return false end
  if claims.nbf ~= nil and (type(claims.nbf) ~= "number" or now < claims.nbf - leeway) then return false end
  return claims.iat == nil or type(claims.iat) == "number"
end

-- jwt_authn takes audiences for equal that differ in their scheme or a trailing slash; authz does not.
local function is_for_us(audience, audiences)
  if audiences == nil then return true end
  if type(audience) ~= "table" then return type(audience) == "string" and audiences[audience] ~= nil end
  local named, count = false, 0
  for _, name in pairs(audience) do
    if type(name) ~= "string" then return false end
    named, count = named or audiences[name] ~= nil, count + 1
  end
  return named and count == #audience
end

local function subject_of(claims, provider)
  local subject = claims[provider.subject]
  if type(subject) ~= "string" or #subject == 0 or #subject > MAX_SUBJECT then return nil end
  if byte(subject, 1) == 32 or byte(subject, -1) == 32 then return nil end
  return subject
end

local function tier_of(claims, provider)
  local tier = claims[provider.tier]
  if tier == nil then return provider.default_tier end
  if type(tier) ~= "string" then return nil end
  tier = lower(tier)
  return TIERS[tier] and tier or nil
end

local function holds(list, name)
  return find(list, "," .. name .. ",", 1, true) ~= nil
end

-- Whether the claims make a caller whom this provider may vouch for, on this route.
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

-- The provider whose key verified the token. jwt_authn reads it from Authorization alone, after `Bearer `, so it is the
-- one whose text is read here.
local function verified_by(metadata)
  local seen = metadata:get(VERIFIED)
  if seen == nil then return nil end
  for index = 1, #PROVIDERS do
    if seen[PROVIDERS[index].name] ~= nil then return PROVIDERS[index] end
  end
  return nil
end

-- Who the token's caller is; nil where authz has to say.
local function identify(settings, metadata, authorization, now)
  local provider = verified_by(metadata)
  if provider == nil or settings.ask or #authorization > MAX_TOKEN + 7 then return nil end
  local head, body, signature = match(authorization, "^Bearer ([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if head == nil or not (canonical(head) and canonical(body) and canonical(signature)) then return nil end
  local header, claims = object_of(head), object_of(body)
  if not header or not claims or not is_plain_header(header, provider) then return nil end
  local subject, tier = caller_of(claims, provider, settings, now)
  if subject == nil then return nil end
  return caller(subject, tier, provider.name .. "/" .. subject, claims.exp + provider.leeway)
end
