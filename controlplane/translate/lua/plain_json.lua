-- A reader of plain JSON objects: printable ASCII without escapes, short numbers, no null, no name twice in an object.
-- Text that is not plain may still be right. Then the reader returns nil, and authz is asked.
--
-- Needs: nothing.
-- Gives: object(text), member(value, way).

local byte, find, match = string.byte, string.find, string.match

local MAX_DEPTH, MAX_CONTAINERS, MAX_NUMBER = 8, 64, 15 -- less than authz takes: plain tokens have less

local PLAIN = '^"([^%c"\\\128-\255]*)"[ \t\r\n]*()'
local value_at

local function number_at(text, at)
  local digits, after = match(text, "^(%-?%d+%.?%d*)[ \t\r\n]*()", at)
  if digits == nil or #digits > MAX_NUMBER or find(digits, "^%-?0%d") or byte(digits, -1) == 46 then return nil end
  return tonumber(digits), after
end

local function object_at(text, at, depth, budget)
  local members = {}
  at = match(text, "^{[ \t\r\n]*()", at)
  if byte(text, at) == 125 then return members, match(text, "^}[ \t\r\n]*()", at) end
  while true do
    local name, value
    name, at = match(text, PLAIN, at)
    if name == nil or members[name] ~= nil then return nil end
    at = match(text, "^:[ \t\r\n]*()", at)
    if at == nil then return nil end
    value, at = value_at(text, at, depth, budget)
    if value == nil then return nil end
    members[name] = value
    local mark = byte(text, at)
    if mark == 125 then return members, match(text, "^}[ \t\r\n]*()", at) end
    if mark ~= 44 then return nil end
    at = match(text, "^,[ \t\r\n]*()", at)
  end
end

local function array_at(text, at, depth, budget)
  local items, count = {}, 0
  at = match(text, "^%[[ \t\r\n]*()", at)
  if byte(text, at) == 93 then return items, match(text, "^%][ \t\r\n]*()", at) end
  while true do
    count = count + 1
    items[count], at = value_at(text, at, depth, budget)
    if items[count] == nil then return nil end
    local mark = byte(text, at)
    if mark == 93 then return items, match(text, "^%][ \t\r\n]*()", at) end
    if mark ~= 44 then return nil end
    at = match(text, "^,[ \t\r\n]*()", at)
  end
end

-- The value and the position after it; nil if it is not plain.
function value_at(text, at, depth, budget)
  local mark = byte(text, at)
  if mark == 34 then return match(text, PLAIN, at) end
  if mark == 123 or mark == 91 then
    budget.containers = budget.containers - 1
    if depth == 0 or budget.containers == 0 then return nil end
    if mark == 123 then return object_at(text, at, depth - 1, budget) end
    return array_at(text, at, depth - 1, budget)
  end
  if mark == 116 or mark == 102 then
    local word, after = match(text, "^(%a+)[ \t\r\n]*()", at)
    if word == "true" or word == "false" then return word == "true", after end
    return nil
  end
  return number_at(text, at)
end

-- The object's members by name; nil if the text is not a plain object.
local function object(text)
  local start = match(text, "^[ \t\r\n]*(){")
  if start == nil then return nil end
  local members, stop = value_at(text, start, MAX_DEPTH, {containers = MAX_CONTAINERS})
  return stop == #text + 1 and members or nil
end

-- The value at the end of a way, a list of steps into objects and arrays; nil if there is none. Objects have texts for
-- names and arrays have numbers, so a step cannot be both.
local function member(value, way)
  for index = 1, #way do
    if type(value) ~= "table" then return nil end
    local step = way[index]
    local inner = value[step]
    if inner == nil and (step == "0" or find(step, "^[1-9]%d*$")) then inner = value[tonumber(step) + 1] end
    value = inner
  end
  return value
end

return {object = object, member = member}
