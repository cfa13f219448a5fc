-- A request's two ids: the client's own if they are valid.
--
-- Needs: names.
-- Gives: accept(headers).

local names = ...

local find = string.find
local header = names.header
local CLIENT_REQUEST_ID, REQUEST_ID, CORRELATION_ID = header.CLIENT_REQUEST_ID, header.REQUEST_ID, header.CORRELATION_ID
local MAX_LENGTH = 128

local function is_valid(id)
  return #id <= MAX_LENGTH and find(id, "^[%w%._%-]+$") ~= nil
end

-- Without a valid one the request id stays Envoy's, and the header mutation filter makes it the correlation id too.
local function accept(headers)
  local id = headers:get(CLIENT_REQUEST_ID)
  if id ~= nil then
    headers:remove(CLIENT_REQUEST_ID)
    if is_valid(id) then headers:replace(REQUEST_ID, id) end
  end
  local correlation = headers:get(CORRELATION_ID)
  if correlation ~= nil and not is_valid(correlation) then headers:remove(CORRELATION_ID) end
end

return {accept = accept}
