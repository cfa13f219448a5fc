-- One path for all: authorisation, routing and the upstream get the same spelling, and no path hides anything.
--
-- Why not Envoy's own normalize_path: it decodes %2e%2e and resolves it before any filter sees it, so a hidden dot
-- segment could not be rejected; and it rejects an encoded slash before the request has ids.
--
-- Needs: nothing.
-- Gives: is_plain(path), normalised(path), is_visible(query).

local find, gsub, match, gmatch = string.find, string.gsub, string.match, string.gmatch
local byte, char, lower, concat = string.byte, string.char, string.lower, table.concat

local SLASH, SEMICOLON = 47, 59

-- Nothing that `normalised` would change or reject.
local function is_plain(path)
  return not (find(path, "[%%\\%z\1-\32\127-\255]") or find(path, "//", 1, true) or find(path, "/.", 1, true))
end

-- Only characters that HTTP/1.1 allows in a request line. Envoy checks that over HTTP/1 alone.
local function is_visible(query)
  return not find(query, "[%z\1-\32\127-\255]")
end

-- RFC 3986, section 2.3: these characters mean the same encoded or not, so they are compared and forwarded unencoded.
local function unreserved(hex)
  local text = char(tonumber(hex, 16))
  if find(text, "^[%w%-%._~]$") then return text end
  return nil
end

-- Percent signs that are encoded, however often, as plain ones: what a server that decodes again would read. nil: none.
local function decoded_again(path)
  if not find(path, "%25", 1, true) then return nil end
  local plain, count = path, 1
  while count > 0 do plain, count = gsub(plain, "%%25", "%%") end
  return plain
end

-- An encoded slash, backslash or NUL; or one of the sequences that are no UTF-8 but that lenient decoders take for a
-- shorter one (RFC 3629, section 10): %c0%ae for a dot.
local function hides(small)
  return find(small, "%2f", 1, true) or find(small, "%5c", 1, true) or find(small, "%00", 1, true)
    or find(small, "%%c[01]%%[89ab]") or find(small, "%%e0%%[89]") or find(small, "%%f[08c]%%8")
end

-- Dots with a parameter, a mark that ends paths, or a control character behind: some servers take /..;x/ for /../
local function is_dots_in_disguise(small)
  local rest = match(small, "^%.%.?([;%%].*)$")
  return rest and (byte(rest) == SEMICOLON or find(rest, "^%%[01]") or find(rest, "^%%2[03]") or find(rest, "^%%3[bf]"))
end

-- The segment with unreserved characters decoded; nil if it hides something.
local function decoded(segment)
  if not find(segment, "[%%;]") then return segment end
  if find(gsub(segment, "%%%x%x", ""), "%", 1, true) then return nil end -- a percent sign without two digits
  local plain = gsub(segment, "%%(%x%x)", unreserved)
  if plain == "." and segment ~= "." or plain == ".." and segment ~= ".." then return nil end
  local small = lower(plain)
  local again = decoded_again(small) -- %25%32%65 reads %252e by now
  if is_dots_in_disguise(small) then return nil end
  if again and (find(again, "%2e", 1, true) or hides(again) or is_dots_in_disguise(again)) then return nil end
  return plain
end

-- Dot segments resolved (RFC 3986, section 5.2.4) and empty segments removed. nil: the path is rejected.
local function normalised(path)
  if find(path, "[\\%z\1-\32\127-\255]") or hides(lower(path)) then return nil end
  local kept, count, is_directory = {}, 0, false
  for segment in gmatch(path, "[^/]+") do
    local plain = decoded(segment)
    if plain == nil then return nil end
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

return {is_plain = is_plain, normalised = normalised, is_visible = is_visible}
