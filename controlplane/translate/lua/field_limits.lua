-- How many header fields a client may send, and how large they may be together. Envoy's codec has limits twice as high:
-- beyond those it answers 431 itself over HTTP/1 and resets the stream over HTTP/2. So both protocols get the same 431
-- for what is a little too much.
--
-- Needs: names, config (max_fields, max_field_bytes).
-- Gives: hold(headers).

local names, config = ...

local CODING = names.header.CODING

-- Before this filter, Envoy has added seven fields to a client's own: the four pseudo-headers, which are not counted
-- (Host is one); x-forwarded-proto; x-envoy-external-address; x-request-id (a client's own has another name by now).
local MAX_FIELDS, MAX_BYTES = config.max_fields + 7, config.max_field_bytes

-- Whether the request's fields are within both limits; its Content-Length, and its Transfer-Encoding. To go through all
-- fields once is cheaper than to look up two.
local function hold(headers)
  local count, bytes, length, coding = 0, 0, nil, nil
  for name, value in pairs(headers) do
    count, bytes = count + 1, bytes + #name + #value
    if name == "content-length" then
      length = value
    elseif name == CODING then
      coding = value
    end
  end
  return count <= MAX_FIELDS and bytes <= MAX_BYTES, length, coding
end

return {hold = hold}
