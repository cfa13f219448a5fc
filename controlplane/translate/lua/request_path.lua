-- A request's path and query: put in order, or the request is rejected; and what the log may show of both.
--
-- Needs: names, path.
-- Gives: clean(handle, headers, raw), reject(handle, headers).

local names, path = ...

local find, sub = string.find, string.sub
local BAD_REQUEST, BAD_PATH = names.header.BAD_REQUEST, names.mark.PATH
local GATEWAY, QUERY_KEY, PATH_KEY = names.namespace.GATEWAY, names.key.QUERY, names.key.PATH
local is_plain, normalised, is_visible, masked = path.is_plain, path.normalised, path.is_visible, path.masked

local function reject(handle, headers)
  headers:replace(BAD_REQUEST, BAD_PATH) -- the first route makes it a 400, after CORS set its headers
  handle:clearRouteCache()
  return false
end

-- Gives the request its path in its one spelling, and the log what it may show. Returns false where the request is
-- rejected instead.
local function clean(handle, headers, raw)
  local mark_at = find(raw, "?", 1, true)
  local plain = mark_at and sub(raw, 1, mark_at - 1) or raw
  if mark_at and mark_at < #raw then
    local query = sub(raw, mark_at + 1)
    handle:streamInfo():dynamicMetadata():set(GATEWAY, QUERY_KEY, masked(query))
    if not is_visible(query) then return reject(handle, headers) end
  end
  if find(plain, "eyJ", 1, true) then handle:streamInfo():dynamicMetadata():set(GATEWAY, PATH_KEY, masked(plain)) end
  if is_plain(plain) then return true end
  local normal = normalised(plain)
  if normal == plain then return true end
  if normal == nil then return reject(handle, headers) end
  headers:replace(":path", mark_at and normal .. sub(raw, mark_at) or normal)
  handle:clearRouteCache()
  return true
end

return {clean = clean, reject = reject}
