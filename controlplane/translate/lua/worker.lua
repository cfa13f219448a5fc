-- What each Envoy worker does once, and its clock.
--
-- Needs: nothing of ours; Envoy's EnvoyTimestampResolution.
-- Gives: now_seconds(handle).

-- Garbage is collected when it is three times as much as what is kept, instead of as much. That is a third of the work,
-- for memory that a full cache can afford.
collectgarbage("setpause", 400)

local function now_seconds(handle)
  return tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) / 1000
end

return {now_seconds = now_seconds}
