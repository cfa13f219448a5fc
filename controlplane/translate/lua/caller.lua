-- What both scripts say of a request's caller. It stands in request headers, which no client can send and no upstream
-- gets: Envoy's filters read them for a fraction of what dynamic metadata costs. IN_QUOTAS is written before this text
-- by translate/script.py.

-- What a request leaves behind is collected once there is three times as much of it as of what is kept, not as much:
-- a third of the work, for memory that a full cache can afford.
collectgarbage("setpause", 400)

local AUTHZ = "envoy.filters.http.ext_authz"

local function now_seconds(handle)
  return tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) / 1000
end

-- A route's settings: lines of NAME=VALUE, read once a worker, because each look into metadata costs. Changed routes
-- have other texts, so old ones are thrown away together when there are too many.
local MAX_SETTINGS = 10000
local read, texts = {}, 0

local function settings_of(handle)
  local text = handle:metadata():get("settings")
  if text == nil then return nil end
  local settings = read[text]
  if settings ~= nil then return settings end
  settings = {}
  for name, value in string.gmatch(text, "([^=\n]+)=([^\n]*)") do settings[name] = value end
  if texts == MAX_SETTINGS then read, texts = {}, 0 end
  read[text], texts = settings, texts + 1
  return settings
end

-- Who calls, until when that may be taken for granted.
local function caller(subject, tier, name, ends)
  return {
    subject = subject, tier = tier, caller = name, ends = ends,
    charged = "\0" .. tier .. "\0" .. name, bucket = tier .. " " .. name,
  }
end

-- authz is not asked about a request that says `settled`.
local function settle(headers, who)
  headers:replace("x-user-id", who.subject)
  headers:replace("x-user-tier", who.tier)
  headers:replace("x-mgw-identity", "settled")
end

local function say(metadata, who)
  metadata:set(AUTHZ, "tier", who.tier)
  metadata:set(AUTHZ, "caller", who.caller)
end

-- Whom to charge, where a limit is looked up. The rate-limit filter has no default for a header, so it reads metadata.
local function charge_to(headers, metadata, who)
  if IN_QUOTAS then
    headers:replace("x-mgw-caller", who.bucket)
  else
    say(metadata, who)
  end
end
