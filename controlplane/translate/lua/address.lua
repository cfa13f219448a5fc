-- Whom an anonymous caller's address stands for: its network, by the prefixes of the document. IPv4 in the guise of
-- IPv6 is IPv4.
--
-- Needs: config (ipv4_prefix, ipv6_prefix).
-- Gives: network_of(peer), of `ADDRESS:PORT` as Envoy writes it; the network's first address.

local config = ...

local find, format, gmatch, gsub, match = string.find, string.format, string.gmatch, string.gsub, string.match
local floor = math.floor
local IPV4_PREFIX, IPV6_PREFIX = config.ipv4_prefix, config.ipv6_prefix

-- The number without its last bits.
local function without(number, bits)
  return number - number % 2 ^ bits
end

local function ipv4_network(a, b, c, d)
  local number = without(((a * 256 + b) * 256 + c) * 256 + d, 32 - IPV4_PREFIX)
  local high, low = floor(number / 65536), number % 65536
  return format("%d.%d.%d.%d", floor(high / 256), high % 256, floor(low / 256), low % 256)
end

local function append_groups(groups, text)
  for group in gmatch(text, "%x+") do groups[#groups + 1] = tonumber(group, 16) end
  return groups
end

-- The eight groups (RFC 4291, section 2.2). The last two may be written as IPv4.
local function groups_of(text)
  local head, a, b, c, d = match(text, "^(.*:)(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if head then text = head .. format("%x:%x", a * 256 + b, c * 256 + d) end
  local left, right = match(text, "^(.-)::(.*)$")
  local groups = append_groups({}, left or text)
  local rest = append_groups({}, right or "")
  for _ = #groups + #rest + 1, 8 do groups[#groups + 1] = 0 end
  for _, group in ipairs(rest) do groups[#groups + 1] = group end
  return groups
end

local function is_ipv4(groups)
  for index = 1, 5 do
    if groups[index] ~= 0 then return false end
  end
  return groups[6] == 65535
end

local function ipv6_network(text)
  local groups = groups_of(text)
  if is_ipv4(groups) then
    local high, low = groups[7], groups[8]
    return ipv4_network(floor(high / 256), high % 256, floor(low / 256), low % 256)
  end
  for index = 1, 8 do
    groups[index] = format("%x", without(groups[index], math.max(0, math.min(16, 16 * index - IPV6_PREFIX))))
  end
  return table.concat(groups, ":", 1, 8)
end

-- An address is read once a worker. Two generations, each of so many addresses.
local MAX_ADDRESSES = 10000
local young, old, count = {}, {}, 0

local function read(address)
  local text = gsub(gsub(address, "[%[%]]", ""), "%%.*", "") -- brackets, and the zone of a link-local address
  if find(text, ":", 1, true) then return ipv6_network(text) end
  local a, b, c, d = match(text, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  return a and ipv4_network(a, b, c, d) or text
end

local function remembered(address)
  local network = young[address]
  if network ~= nil then return network end
  network = old[address] or read(address)
  if count == MAX_ADDRESSES then young, old, count = {}, young, 0 end
  young[address], count = network, count + 1
  return network
end

local function network_of(peer)
  local plain = IPV4_PREFIX == 32 and match(peer, "^(%d+%.%d+%.%d+%.%d+):%d+$")
  return plain or remembered(match(peer, "^(.*):%d+$") or peer)
end

return {network_of = network_of}
