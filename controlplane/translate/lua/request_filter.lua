-- The front door: every request gets one path and two valid ids before anything else looks at it.
--
-- Why not Envoy's own normalize_path: it decodes %2e%2e and resolves it before any filter sees it, so a hidden dot
-- segment could not be refused; and its refusal of an encoded slash comes before the request has ids.

local find, sub, gsub, match, byte = string.find, string.sub, string.gsub, string.match, string.byte
local lower, char, concat = string.lower, string.char, table.concat

-- RFC 3986 section 2.3: these may be written either way, so they are compared, and forwarded, in one way.
local function unreserved(hex)
  local text = char(tonumber(hex, 16))
  if find(text, "^[%w%-%._~]$") then return text end
  return nil
end

-- Encoded percent signs, however deep, before what must not be hidden: dot, slash, backslash, NUL.
local function hides(path)
  local from = 1
  while true do
    local _, stop = find(path, "%25", from, true)
    if not stop then return false end
    local at = stop + 1
    while sub(path, at, at + 1) == "25" do at = at + 2 end
    local code = sub(path, at, at + 1)
    if code == "2e" or code == "2f" or code == "5c" or code == "00" then return true end
    from = stop + 1
  end
end

-- The segment with unreserved characters decoded; nil where it hides something.
local function decoded(segment)
  if not find(segment, "%", 1, true) then return segment end
  if find(gsub(segment, "%%%x%x", ""), "%", 1, true) then return nil end
  local plain = gsub(segment, "%%(%x%x)", unreserved)
  if plain == "." or plain == ".." or match(plain, "^%.%.?;") then return nil end
  if hides(lower(plain)) then return nil end -- %25%32%65 reads %252e by now
  return plain
end

-- RFC 3986 section 5.2.4, with empty segments merged. nil: refuse the request.
local function normalised(path)
  local small = lower(path)
  if find(path, "\\", 1, true) or find(small, "%2f", 1, true) or find(small, "%5c", 1, true)
    or find(small, "%00", 1, true) or hides(small) then
    return nil
  end
  local kept, count, trailing = {}, 0, false
  for segment in path:gmatch("[^/]+") do
    local plain = decoded(segment)
    if plain == nil or match(plain, "^%.%.?;") then return nil end
    trailing = plain == "." or plain == ".."
    if plain == ".." then
      kept[count] = nil
      if count > 0 then count = count - 1 end
    elseif plain ~= "." then
      count = count + 1
      kept[count] = plain
    end
  end
  if count == 0 then return "/" end
  if trailing or byte(path, -1) == 47 then return "/" .. concat(kept, "/") .. "/" end
  return "/" .. concat(kept, "/")
end

local function valid_id(text)
  return text ~= nil and #text <= 128 and find(text, "^[%w%._%-]+$") ~= nil
end

-- What goes into the log of a path or a query: a token must not.
local function logged(query)
  if find(query, "eyJ", 1, true) then query = gsub(query, "eyJ[%w_%-]+%.[%w_%-]+%.?[%w_%-]*", "***") end
  if find(lower(query), "token", 1, true) then
    query = gsub(query, "([^&=]*[Tt][Oo][Kk][Ee][Nn][^&=]*=)[^&]*", "%1***")
  end
  return query
end

local known

function envoy_on_request(handle)
  local headers = handle:headers()
  local id = headers:get("x-mgw-client-request-id")
  if id ~= nil then
    headers:remove("x-mgw-client-request-id")
    if valid_id(id) then headers:replace("x-request-id", id) end
  end
  local correlation = headers:get("x-correlation-id") -- the filter of headers puts the request's id where there is none
  if correlation ~= nil and not valid_id(correlation) then headers:remove("x-correlation-id") end

  local path = headers:get(":path")
  if path == nil then -- CONNECT, which has no body's end either: all below would wait for it
    handle:respond({ [":status"] = "400" }, "")
    return
  end
  local mark = find(path, "?", 1, true)
  local plain = mark and sub(path, 1, mark - 1) or path
  if mark and mark < #path then
    handle:streamInfo():dynamicMetadata():set("mgw", "query", logged(sub(path, mark + 1)))
  end
  if find(plain, "eyJ", 1, true) then handle:streamInfo():dynamicMetadata():set("mgw", "path", logged(plain)) end
  if find(plain, "%", 1, true) or find(plain, "\\", 1, true)
    or find(plain, "//", 1, true) or find(plain, "/.", 1, true) then
    local clean = normalised(plain)
    if clean == nil then
      headers:replace("x-mgw-refuse", "path") -- the first route answers 400, after CORS had its say
    elseif clean ~= plain then
      headers:replace(":path", mark and clean .. sub(path, mark) or clean)
    end
    if clean ~= plain then handle:clearRouteCache() end
    if clean == nil then return end
  end
  known(handle, headers)
end

-- What may be a preflight is answered before the limiter, and costs nothing.
local function is_covered(headers, metadata, limits, charged, now)
  return headers:get(":method") ~= "OPTIONS" and spend(headers, metadata, limits, charged, now)
end

-- A request without credentials, where none are asked for, is anonymous whoever decides. Its lease is its address's.
local function nobody(handle, headers, settings)
  if not settings.anonymous then return end
  if VERIFIED_HERE then headers:replace("x-mgw-identity", "settled") end
  if not (spend and settings.limits) then return end
  local stream = handle:streamInfo()
  local address = match(stream:downstreamRemoteAddress(), "^(.*):%d+$")
  if address == nil then return end
  is_covered(headers, stream:dynamicMetadata(), settings.limits, "\0anonymous\0" .. address, now_seconds(handle))
end

local function somebody(handle, headers, settings, who, now)
  settle(headers, who)
  if IN_QUOTAS then return charge_to(headers, nil, who) end
  local metadata = handle:streamInfo():dynamicMetadata()
  if spend and settings.limits and is_covered(headers, metadata, settings.limits, who.charged, now) then return end
  charge_to(headers, metadata, who)
end

-- Sets the caller where this worker knows it, and then spends from its lease. What is not known here is verified by
-- Envoy, if it has the keys, or else authz is asked.
function known(handle, headers)
  local settings = settings_of(handle)
  if settings == nil then return end
  if settings.counter ~= nil then headers:replace("x-mgw-counter", settings.counter) end
  if settings.auth == nil or headers:get(API_KEY_HEADER) ~= nil then return end
  local authorization = headers:get("authorization")
  if authorization == nil then return nobody(handle, headers, settings) end
  local now = recall and now_seconds(handle)
  local who = recall and recall(settings.policy, authorization, now)
  if who then return somebody(handle, headers, settings, who, now) end
  if VERIFIED_HERE then headers:replace("x-mgw-identity", "unverified") end
  if recall then
    local asked = {policy = settings.policy, authorization = authorization, epoch = settings.epoch}
    note(handle:streamInfo():dynamicMetadata(), asked)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if is_noted() then
    local metadata = handle:streamInfo():dynamicMetadata()
    local what = noted_of(metadata)
    if what == nil then
      -- another request's
    elseif what.spent ~= nil then
      if headers:get("x-gateway-error") == "PAYLOAD_TOO_LARGE" then
        give_back(what)
      else
        describe(headers, what.spent, what.after, now_seconds(handle))
      end
    elseif what.refusal ~= nil then
      describe_refusal(headers, what)
    elseif what.account ~= nil then
      take(headers, metadata, what)
    else
      remember(metadata, what, now_seconds(handle))
    end
  end
  -- Fields that an upstream's Connection names are for us alone (RFC 9110, section 7.6.1); Envoy drops only Connection.
  local named = headers:get("connection")
  if named == nil then return end
  for name in lower(named):gmatch("[^,%s]+") do
    if name ~= "content-length" and name ~= "transfer-encoding" and byte(name) ~= 58 then headers:remove(name) end
  end
end
