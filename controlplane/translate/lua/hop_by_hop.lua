-- Headers that an upstream names in Connection are for this hop alone (RFC 9110, section 7.6.1). Envoy removes only
-- Connection itself.
--
-- An upstream may not name what is meant for all recipients, and cannot take back what the gateway itself has set.
--
-- Needs: names.
-- Gives: remove(headers).

local names = ...

local find, gmatch, lower = string.find, string.gmatch, string.lower

local KEPT = {
  ["transfer-encoding"] = true, ["set-cookie"] = true, ["cache-control"] = true, ["retry-after"] = true,
  ["www-authenticate"] = true, ["strict-transport-security"] = true, ["x-frame-options"] = true,
  ["x-content-type-options"] = true, ["referrer-policy"] = true, ["vary"] = true, ["location"] = true,
  ["date"] = true, ["etag"] = true, [names.header.REQUEST_ID] = true, [names.header.CORRELATION_ID] = true,
}
for _, name in pairs(names.response_header) do KEPT[name] = true end

-- Whole families, and the pseudo-header.
local function is_kept(name)
  return KEPT[name] or find(name, "^:") or find(name, "^content%-") or find(name, "^access%-control%-")
end

local function remove(headers)
  local named = headers:get("connection")
  if named == nil then return end
  for name in gmatch(lower(named), "[^,%s]+") do
    if not is_kept(name) then headers:remove(name) end
  end
end

return {remove = remove}
