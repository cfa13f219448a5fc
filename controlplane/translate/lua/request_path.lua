-- A request's path and query: put in order, or the request is rejected; and what the log may show of both.
--
-- Needs: names, config (query), path, mask.
-- Gives: is_usual(raw), show(handle, raw), clean(handle, headers, plain, query, is_shown), reject(handle, headers).

local names, config, path, mask = ...

local find, sub = string.find, string.sub
local BAD_REQUEST, BAD_PATH = names.header.BAD_REQUEST, names.mark.PATH
local GATEWAY, QUERY_KEY, PATH_KEY = names.namespace.GATEWAY, names.key.QUERY, names.key.PATH
local is_plain, normalised, is_visible = path.is_plain, path.normalised, path.is_visible
local masked_path = mask.path
local shown_query = ({full = mask.printable, masked = mask.query})[config.query] -- nil: the log has no queries

-- Paths that were found to need nothing done, for the usual ones repeat. All are dropped when there are too many.
local MAX_PATHS, MAX_LENGTH = 4000, 128
local usual, count = {}, 0

local function is_usual(raw)
  return usual[raw] ~= nil
end

local function keep(plain)
  if #plain > MAX_LENGTH then return end
  if count == MAX_PATHS then usual, count = {}, 0 end
  usual[plain], count = true, count + 1
end

local function reject(handle, headers)
  headers:replace(BAD_REQUEST, BAD_PATH) -- the first route makes it a 400, after CORS set its headers
  handle:clearRouteCache()
  return false
end

local function parts(raw)
  local mark_at = find(raw, "?", 1, true)
  if mark_at == nil then return raw, nil end
  return sub(raw, 1, mark_at - 1), sub(raw, mark_at + 1)
end

-- Tells the log what it may show. Before anything rejects the request, or the log would show the path as it came.
-- Returns the path, the query, and whether the log shows the path as it is.
local function show(handle, raw)
  local plain, query = parts(raw)
  if shown_query and query and query ~= "" then
    handle:streamInfo():dynamicMetadata():set(GATEWAY, QUERY_KEY, shown_query(query))
  end
  local shown = masked_path(plain)
  if shown ~= plain then handle:streamInfo():dynamicMetadata():set(GATEWAY, PATH_KEY, shown) end
  return plain, query, shown == plain
end

-- Gives the request its path in its one spelling, from what `show` returned. Returns false where it rejects it instead.
local function clean(handle, headers, plain, query, is_shown)
  if query and not is_visible(query) then return reject(handle, headers) end
  if is_plain(plain) then
    if query == nil and is_shown then keep(plain) end
    return true
  end
  local normal = normalised(plain)
  if normal == plain then return true end
  if normal == nil then return reject(handle, headers) end
  headers:replace(":path", query and normal .. "?" .. query or normal)
  handle:clearRouteCache()
  return true
end

return {is_usual = is_usual, show = show, clean = clean, reject = reject}
