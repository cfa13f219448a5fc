-- One path for all: authorisation, routing and the upstream get the same spelling, and no path hides anything.
--
-- Why not Envoy's own normalize_path: it decodes %2e%2e and resolves it before any filter sees it, so a hidden dot
-- segment could not be rejected; and it rejects an encoded slash before the request has ids.
--
-- Needs: nothing.
-- Gives: is_plain(path), normalised(path), masked(text).

local find, sub, gsub, match, gmatch = string.find, string.sub, string.gsub, string.match, string.gmatch
local byte, char, lower, concat = string.byte, string.char, string.lower, table.concat

local SLASH = 47

-- Nothing that `normalised` would change or reject.
local function is_plain(path)
  return not (find(path, "%", 1, true) or find(path, "\\", 1, true)
    or find(path, "//", 1, true) or find(path, "/.", 1, true))
end

-- RFC 3986, section 2.3: these characters mean the same encoded or not, so they are compared and forwarded unencoded.
local function unreserved(hex)
  local text = char(tonumber(hex, 16))
  if find(text, "^[%w%-%._~]$") then return text end
  return nil
end

-- Whether percent signs are encoded, however often, in front of the code of a dot, slash, backslash or NUL.
local function is_encoded_again(path)
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

-- The segment with unreserved characters decoded; nil if it hides something.
local function decoded(segment)
  if not find(segment, "%", 1, true) then return segment end
  if find(gsub(segment, "%%%x%x", ""), "%", 1, true) then return nil end -- a percent sign without two digits
  local plain = gsub(segment, "%%(%x%x)", unreserved)
  if plain == "." or plain == ".." then return nil end
  if is_encoded_again(lower(plain)) then return nil end -- %25%32%65 reads %252e by now
  return plain
end

local function has_forbidden(small)
  return find(small, "\\", 1, true) or find(small, "%2f", 1, true) or find(small, "%5c", 1, true)
    or find(small, "%00", 1, true) or is_encoded_again(small)
end

-- Dot segments resolved (RFC 3986, section 5.2.4) and empty segments removed. nil: the path is rejected.
local function normalised(path)
  if has_forbidden(lower(path)) then return nil end
  local kept, count, is_directory = {}, 0, false
  for segment in gmatch(path, "[^/]+") do
    local plain = decoded(segment)
    if plain == nil or match(plain, "^%.%.?;") then return nil end -- some servers take /..;x/ for /../
    is_directory = plain == "." or plain == ".."
    if plain == ".." then
      kept[count] = nil
      if count > 0 then count = count - 1 end
    elseif plain ~= "." then
      count = count + 1
      kept[count] = plain
    end
  end
  if count == 0 then return "/" end
  if is_directory or byte(path, -1) == SLASH then return "/" .. concat(kept, "/") .. "/" end
  return "/" .. concat(kept, "/")
end

-- A path or a query as the log may show it: without what may be a token.
local function masked(text)
  if find(text, "eyJ", 1, true) then text = gsub(text, "eyJ[%w_%-]+%.[%w_%-]+%.?[%w_%-]*", "***") end
  if find(lower(text), "token", 1, true) then
    text = gsub(text, "([^&=]*[Tt][Oo][Kk][Ee][Nn][^&=]*=)[^&]*", "%1***")
  end
  return text
end

return {is_plain = is_plain, normalised = normalised, masked = masked}
