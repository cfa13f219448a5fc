-- How a script ends a request: a mark that says why, and the status. The fault filter behind CORS does it, and the
-- local reply for the mark makes the error.
--
-- Needs: names.
-- Gives: no_token(headers), body(headers), fields(headers), over_limit(headers).

local names = ...

local REJECTED, ABORT, mark = names.header.REJECTED, names.header.ABORT, names.mark

local function ends_with(status, why)
  return function(headers)
    headers:replace(REJECTED, why)
    headers:replace(ABORT, status)
  end
end

return {
  no_token = ends_with("401", mark.NO_TOKEN),
  body = ends_with("413", mark.BODY),
  over_limit = ends_with("429", mark.OVER_LIMIT),
  fields = ends_with("431", mark.FIELDS),
}
