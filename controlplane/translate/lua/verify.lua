-- The second look at a caller whom the front door does not know: right behind jwt_authn, which verified the token. What
-- it finds out it says as authz would, so that the front door keeps it and the limiter charges it in the same way.

function envoy_on_request(handle)
  local headers, metadata, settings = handle:headers(), handle:streamInfo():dynamicMetadata(), settings_of(handle)
  local who = identify(settings, metadata, headers:get("authorization"), now_seconds(handle))
  if who == nil then return end
  settle(headers, who)
  charge_to(headers, metadata, who)
  if settings.epoch == nil then return end -- nothing is kept
  if IN_QUOTAS then say(metadata, who) end -- else it is said by now
  metadata:set(AUTHZ, "subject", who.subject)
  metadata:set(AUTHZ, "until", who.ends)
  metadata:set(AUTHZ, "epoch", settings.epoch)
end
