-- What trusted hops told of a client: the protocol is one of two, and an address that could not be read is marked.
--
-- Needs: names.
-- Gives: check(handle, headers).

local names = ...

local find, lower = string.find, string.lower
local FOR, PROTO = names.header.FORWARDED_FOR, names.header.FORWARDED_PROTO
local GATEWAY, UNREAD = names.namespace.GATEWAY, names.key.UNREAD
local PROTOCOLS = {http = "http", https = "https", ws = "http", wss = "https"}

-- A hop's word if it is one of the two, else how the connection came.
local function check_protocol(handle, headers)
  local said = headers:get(PROTO)
  if said == nil then return end
  local plain = PROTOCOLS[lower(said)] or handle:connection():ssl() and "https" or "http"
  if plain ~= said then headers:replace(PROTO, plain) end
  if said == "" then handle:clearRouteCache() end -- Envoy finds no route for an empty one
end

-- An address that Envoy read in the header has port 0. Any other is that of whatever is connected.
local function check_address(handle, headers)
  local said = headers:get(FOR)
  if said == nil or said == "" then return end
  local stream = handle:streamInfo()
  if not find(stream:downstreamRemoteAddress(), ":0$") then stream:dynamicMetadata():set(GATEWAY, UNREAD, true) end
end

local function check(handle, headers)
  check_protocol(handle, headers)
  check_address(handle, headers)
end

return {check = check}
