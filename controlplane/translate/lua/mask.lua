-- A path or a query as the log may show it: without what may be a credential, however it is encoded.
--
-- Each part is decoded first. What then is the value of a parameter with a secret's name, or looks like a token, is
-- masked. A part with nothing to mask stays as it was sent.
--
-- Needs: config (secret_words, secret_names).
-- Gives: query(text), path(text), printable(text).

local config = ...

local find, sub, gsub, gmatch, match = string.find, string.sub, string.gsub, string.gmatch, string.match
local byte, char, lower, format = string.byte, string.char, string.lower, string.format
local min = math.min

local WORDS, NAMES = config.secret_words, config.secret_names
local MASK, EQUALS = "***", 61
local MAX_ROUNDS = 5 -- of decoding
local MIN_OPAQUE = 20 -- characters behind "Bearer", so that it is no word of a sentence

local function decode(hex) return char(tonumber(hex, 16)) end
local function encode(character) return format("%%%02X", byte(character)) end

-- The text decoded as often as it is encoded; nil if that is too often for any good reason.
local function decoded(text)
  for _ = 1, MAX_ROUNDS do
    if not find(text, "%", 1, true) then return text end
    local plain = gsub(gsub(text, "%%u00(%x%x)", decode), "%%(%x%x)", decode)
    if plain == text then return text end
    text = plain
  end
  return nil
end

local function bare(name)
  local result = gsub(lower(name), "[^%w]", "")
  return result
end

local function sounds_secret(name)
  local whole = bare(name)
  if NAMES[whole] then return true end
  for _, word in ipairs(WORDS) do
    if find(whole, word, 1, true) then return true end
  end
  for part in gmatch(name, "[^%[%]{}:,.\"'%s]+") do -- user[code], oauth.code
    if NAMES[bare(part)] then return true end
  end
  return false
end

-- Names repeat, so what was found out of one is kept.
local MAX_NAMES, MAX_KEPT_LENGTH = 1000, 64
local by_name, count = {}, 0

local function is_secret(name)
  local known = by_name[name]
  if known ~= nil then return known end
  known = sounds_secret(name)
  if #name > MAX_KEPT_LENGTH then return known end
  if count == MAX_NAMES then by_name, count = {}, 0 end
  by_name[name], count = known, count + 1
  return known
end

-- Where the value of the first secret parameter begins. nil: there is none.
local function assigned_at(text)
  local from = 1
  while true do
    local at = find(text, "[=&;?#/]", from)
    if at == nil then return nil end
    if byte(text, at) == EQUALS and is_secret(sub(text, from, at - 1)) then return at + 1 end
    from = at + 1
  end
end

-- The same for JSON: "token": "abc".
local function member_at(text)
  if not find(text, ":", 1, true) then return nil end
  for name, at in gmatch(text, "[\"']([^\"']*)[\"']%s*:()") do
    if is_secret(name) then return at end
  end
  return nil
end

local function bearer_at(text)
  for at in gmatch(lower(text), "bearer[%s+]+()") do
    if #match(text, "^[^%s]*", at) >= MIN_OPAQUE then return at end
  end
  return nil
end

-- A token's header begins with { and then a quotation mark or white space: eyJ, or rarely another of these.
local function masked_run(run)
  if match(run, "^e[yw][A-DI-Lk-r0-3][%w_%-]*%.[%w_%-]*%.") then return MASK end
  local at = find(run, "eyJ", 1, true)
  if at and find(run, ".", at, true) then return sub(run, 1, at - 1) .. MASK end
  return nil
end

local function without_tokens(text)
  text = gsub(text, "ZXlK[%w+/=_-]*", MASK) -- a token that is encoded once more: base64 of eyJ
  if find(text, "e[yw][A-DI-Lk-r0-3]") then text = gsub(text, "[%w_%-.]+", masked_run) end
  if find(text, "://", 1, true) then text = gsub(text, "://[^/@%s:]*:[^/@%s]*@", "://" .. MASK .. "@") end
  return text
end

-- A credential's value has no certain end, so all behind its name is masked.
local function shown(text)
  local none = #text + 1
  local at = min(assigned_at(text) or none, member_at(text) or none, bearer_at(text) or none)
  if at == none then return without_tokens(text) end
  return without_tokens(sub(text, 1, at - 1)) .. MASK
end

local function masked(part)
  local plain = decoded(part)
  if plain == nil then return MASK end
  local result = shown(plain)
  if result == plain then return part end
  result = gsub(result, "[^!\"#$'-~]", encode)
  return result
end

-- A slash or question mark that was encoded stays so.
local function masked_segment(segment)
  local result = masked(segment)
  if result ~= segment then result = gsub(result, "[/?]", encode) end
  return result
end

-- Bytes that are no characters of a URL are encoded: a log line is text.
local function printable(text)
  if find(text, "[^!-~]") then text = gsub(text, "[^!-~]", encode) end
  return text
end

-- The two below ask whether there can be anything to mask at all. They find plain text, which LuaJIT compiles; patterns
-- it does not.
local function may_hold_token(text)
  return find(text, "%", 1, true) or find(text, "'", 1, true) or find(text, '"', 1, true)
    or find(text, "ZXlK", 1, true)
    or ((find(text, "ey", 1, true) or find(text, "ew", 1, true)) and find(text, "e[yw][A-DI-Lk-r0-3]"))
end

-- Whether each name is known to be none of a secret, and each value has no further name in it.
local function has_harmless_names(text)
  local from = 1
  while true do
    local equals = find(text, "=", from, true)
    if equals == nil then return true end
    if by_name[sub(text, from, equals - 1)] ~= false then return false end
    local next_equals, ends = find(text, "=", equals + 1, true), find(text, "&", equals + 1, true)
    if next_equals == nil then return true end
    if ends == nil or next_equals < ends then return false end
    from = ends + 1
  end
end

local function query(text)
  local is_harmless = has_harmless_names(text) and not may_hold_token(text)
    and not find(text, "://", 1, true) and not find(lower(text), "bearer", 1, true)
  return printable(is_harmless and text or gsub(text, "[^&]+", masked))
end

-- The access log asks the same (`masking.SUSPICIOUS_PATH`).
local function path(text)
  if not (find(text, "=", 1, true) or find(text, "+", 1, true) or may_hold_token(text)) then return text end
  return printable(gsub(text, "[^/]+", masked_segment))
end

return {query = query, path = path, printable = printable}
