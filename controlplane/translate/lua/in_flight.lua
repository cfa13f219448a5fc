-- What has to be remembered of a request until its response comes.
--
-- Of a request Envoy gives its response nothing but metadata. Metadata is expensive to read, so it is read only while
-- something is remembered. The number in it is ours and not the request's id: a client could choose the id of another
-- request and get that one's response.
--
-- Needs: names.
-- Gives: add(metadata, what), take(metadata), is_any().

local names = ...

local GATEWAY, IN_FLIGHT = names.namespace.GATEWAY, names.key.IN_FLIGHT

-- A request whose response never came leaves its entry behind. So there are two generations: when the younger one is
-- full it becomes the older one, and the requests under way keep their entries.
local MAX_ENTRIES = 10000
local young, young_count, old, old_count = {}, 0, {}, 0
local last_number = 0

local function add(metadata, what)
  if young_count >= MAX_ENTRIES then young, young_count, old, old_count = {}, 0, young, young_count end
  last_number = last_number + 1
  young[last_number], young_count = what, young_count + 1
  metadata:set(GATEWAY, IN_FLIGHT, last_number)
end

-- Returns what was added with this request, once; nil if there is nothing.
local function take(metadata)
  local own = metadata:get(GATEWAY)
  local number = own and own[IN_FLIGHT]
  local what = number and young[number]
  if what then
    young[number], young_count = nil, young_count - 1
  elseif number then
    what = old[number]
    if what then old[number], old_count = nil, old_count - 1 end
  end
  return what
end

local function is_any()
  return young_count + old_count > 0
end

return {add = add, take = take, is_any = is_any}
