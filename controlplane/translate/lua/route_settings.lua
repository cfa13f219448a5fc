-- What the control plane tells the scripts of a route: lines of NAME=VALUE in the route's metadata.
--
-- Needs: names.
-- Gives: of(handle), which returns the settings by name, or nil if the route has none.

local names = ...

local SETTINGS = names.key.SETTINGS

-- A text is read once a worker, because that costs. Changed routes have other texts, so all are dropped when there are
-- too many.
local MAX_TEXTS = 10000
local by_text, count = {}, 0

local function read(text)
  local settings = {}
  for name, value in string.gmatch(text, "([^=\n]+)=([^\n]*)") do settings[name] = value end
  return settings
end

local function of(handle)
  local text = handle:metadata():get(SETTINGS)
  if text == nil then return nil end
  local settings = by_text[text]
  if settings ~= nil then return settings end
  settings = read(text)
  if count == MAX_TEXTS then by_text, count = {}, 0 end
  by_text[text], count = settings, count + 1
  return settings
end

return {of = of}
