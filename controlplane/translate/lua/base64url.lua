-- Base64url without padding (RFC 4648, section 5) of text that has no other characters.
--
-- Needs: nothing.
-- Gives: is_canonical(text), decoded(text).

local byte, char, concat, floor = string.byte, string.char, table.concat, math.floor

-- The value of each character's code.
local DIGIT = {}
for value = 0, 63 do
  DIGIT[byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", value + 1)] = value
end

-- The length is possible, and the last character's unused bits are zero (section 3.5), so no other text decodes to the
-- same bytes.
local function is_canonical(text)
  local rest = #text % 4
  return rest == 0 or rest == 2 and DIGIT[byte(text, -1)] % 16 == 0 or rest == 3 and DIGIT[byte(text, -1)] % 4 == 0
end

local pieces = {}

-- The bytes that a canonical text stands for.
local function decoded(text)
  local count, length = 0, #text
  for at = 1, length - 3, 4 do
    local a, b, c, d = byte(text, at, at + 3)
    b, c = DIGIT[b], DIGIT[c]
    count = count + 1
    pieces[count] = char(DIGIT[a] * 4 + floor(b / 16), b % 16 * 16 + floor(c / 4), c % 4 * 64 + DIGIT[d])
  end
  local rest = length % 4
  if rest > 0 then
    local a, b, c = byte(text, length - rest + 1, length)
    b = DIGIT[b]
    count = count + 1
    pieces[count] = char(DIGIT[a] * 4 + floor(b / 16))
    if rest == 3 then pieces[count] = pieces[count] .. char(b % 16 * 16 + floor(DIGIT[c] / 4)) end
  end
  return concat(pieces, "", 1, count)
end

return {is_canonical = is_canonical, decoded = decoded}
