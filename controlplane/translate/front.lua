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
  local correlation = headers:get("x-correlation-id")
  if correlation == nil or not valid_id(correlation) then
    headers:replace("x-correlation-id", headers:get("x-request-id"))
  end

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
  if find(plain, "[%%\\]") or find(plain, "//", 1, true) or find(plain, "/.", 1, true) then
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

-- A request without credentials, where none are asked for, is anonymous whoever decides. Its lease is its address's.
local function nobody(handle, headers, settings, metadata)
  if not settings:get("anonymous") then return end
  if identify then metadata:set(AUTHZ, "tier", "anonymous") end
  local limits = spend and settings:get("limits")
  if not limits or headers:get(":method") == "OPTIONS" then return end
  local address = match(handle:streamInfo():downstreamRemoteAddress(), "^(.*):%d+$")
  if address ~= nil then spend(headers, metadata, limits, "\0anonymous\0" .. address, now_seconds(handle)) end
end

-- Sets the caller where this worker knows it, and then spends from its lease. What is not known here, authz is asked.
function known(handle, headers)
  local settings = handle:metadata()
  if settings:get("auth") == nil or headers:get(API_KEY_HEADER) ~= nil then return end
  local authorization, metadata = headers:get("authorization"), handle:streamInfo():dynamicMetadata()
  if authorization == nil then return nobody(handle, headers, settings, metadata) end
  local now = now_seconds(handle)
  local policy = settings:get("policy")
  local who = recall and recall(policy, authorization, now)
  if who == nil and identify then
    who = identify(settings, metadata, authorization, now)
    if who ~= nil and keep then
      who.ends = math.min(who.ends, now + CACHE_SECONDS)
      keep(policy, authorization, who)
    end
  end
  if who ~= nil then
    settle(headers, metadata, who)
    local limits = settings:get("limits")
    -- What may be a preflight is answered before the limiter, and costs nothing.
    if limits == nil or headers:get(":method") == "OPTIONS" or not spend(headers, metadata, limits, who.charged, now) then
      charge_to(metadata, who)
    end
  elseif recall then
    note(metadata, {policy = policy, authorization = authorization, epoch = settings:get("epoch")})
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
