-- The verifier: it stands right behind jwt_authn, for a caller whom the request filter did not know. It says what authz
-- would, in the same places, so that the request filter keeps it and the limiter charges it in the same way.
--
-- Needs: names, config (in_quotas) and the modules below.
-- Gives: envoy_on_request(handle), which Envoy calls.

local names, config, worker, route_settings, caller, identity = ...

local now_seconds, settings_of, identify = worker.now_seconds, route_settings.of, identity.identify
local set_known, set_metadata, charge_to = caller.set_known, caller.set_metadata, caller.charge_to
local AUTHZ, key, IN_QUOTAS = names.namespace.AUTHZ, names.key, config.in_quotas
local SUBJECT, UNTIL, EPOCH = key.SUBJECT, key.UNTIL, key.EPOCH

local function on_request(handle)
  local headers, metadata, settings = handle:headers(), handle:streamInfo():dynamicMetadata(), settings_of(handle)
  local who = identify(settings, metadata, headers:get("authorization"), now_seconds(handle))
  if who == nil then return end
  set_known(headers, who)
  charge_to(headers, metadata, who)
  if settings.epoch == nil then return end -- there is no decision cache
  if IN_QUOTAS then set_metadata(metadata, who) end -- else charge_to has done it
  metadata:set(AUTHZ, SUBJECT, who.subject)
  metadata:set(AUTHZ, UNTIL, who.ends)
  metadata:set(AUTHZ, EPOCH, settings.epoch)
end

return {envoy_on_request = on_request}
