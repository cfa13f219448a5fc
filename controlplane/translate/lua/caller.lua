-- A verified caller, and how the scripts tell Envoy's filters about one. They use request headers, which no client can
-- send and no upstream gets: Envoy's filters read them for a fraction of what dynamic metadata costs.
--
-- Needs: names, config (in_quotas).
-- Gives: new(subject, tier, name, ends), set_known(headers, caller), set_metadata(metadata, caller),
-- charge_to(headers, metadata, caller); and ANONYMOUS, what the account of an address begins with.

local names, config = ...

local header, mark, key = names.header, names.mark, names.key
local USER_ID, USER_TIER, USER_ISSUER = header.USER_ID, header.USER_TIER, header.USER_ISSUER
local IDENTITY, CALLER = header.IDENTITY, header.CALLER
local KNOWN, AUTHZ = mark.KNOWN, names.namespace.AUTHZ
local TIER_KEY, CALLER_KEY = key.TIER, key.CALLER
local IN_QUOTAS = config.in_quotas

-- `name` is PROVIDER/SUBJECT, and the identity holds until `ends`. `account` names the caller's leases, `bucket` its
-- quota. A provider's name has no slash.
local function new(subject, tier, name, ends)
  return {
    subject = subject, tier = tier, issuer = string.match(name, "^[^/]*"), name = name, ends = ends,
    account = "\0" .. tier .. "\0" .. name, bucket = tier .. " " .. name,
  }
end

-- Authz is not asked about this request.
local function set_known(headers, caller)
  headers:replace(USER_ID, caller.subject)
  headers:replace(USER_TIER, caller.tier)
  headers:replace(USER_ISSUER, caller.issuer)
  headers:replace(IDENTITY, KNOWN)
end

-- What authz would have said.
local function set_metadata(metadata, caller)
  metadata:set(AUTHZ, TIER_KEY, caller.tier)
  metadata:set(AUTHZ, CALLER_KEY, caller.name)
end

-- Tells whoever enforces the limits whom to charge. The rate-limit filter has no default for an absent header, so it
-- reads metadata.
local function charge_to(headers, metadata, caller)
  if IN_QUOTAS then
    headers:replace(CALLER, caller.bucket)
  else
    set_metadata(metadata, caller)
  end
end

return {
  new = new, set_known = set_known, set_metadata = set_metadata, charge_to = charge_to, ANONYMOUS = "\0anonymous\0",
}
