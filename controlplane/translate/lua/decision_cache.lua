-- The decision cache: authz is not asked about a token that it allowed a moment ago.
--
-- authz's decision is kept for CACHE_SECONDS at most, and never beyond the token's end. Its key holds what the route
-- asks of a caller and the policy's epoch, so nothing is found after a changed policy or a revocation. A denial and an
-- anonymous caller are never kept. Once the clock was set back nothing tells how old a decision is: all are forgotten.
--
-- Needs: names, config (cache_seconds, cache_entries), caller.
-- Gives: recall(policy, authorization, now), remember(metadata, asked, now).

local names, config, caller = ...

local new_caller = caller.new
local AUTHZ, key = names.namespace.AUTHZ, names.key
local SUBJECT, TIER, CALLER, UNTIL, EPOCH = key.SUBJECT, key.TIER, key.CALLER, key.UNTIL, key.EPOCH
local CACHE_SECONDS, CACHE_ENTRIES = config.cache_seconds, config.cache_entries
local MAX_AUTHORIZATION = 8300

-- Two generations: when the younger one is full it becomes the older one, and what was not asked for meanwhile is
-- forgotten. In each, a table of callers by token for every `policy`.
local young, old, count = {}, {}, 0
local latest = 0

local function forget_after_a_step_back(now)
  if now < latest then young, old, count = {}, {}, 0 end
  latest = now
end

local function keep(policy, authorization, who)
  if #authorization > MAX_AUTHORIZATION then return end
  if count >= CACHE_ENTRIES then young, old, count = {}, young, 0 end
  local by_token = young[policy]
  if by_token == nil then
    by_token = {}
    young[policy] = by_token
  end
  if by_token[authorization] == nil then count = count + 1 end
  by_token[authorization] = who
end

-- The token's caller; nil if it is not known.
local function recall(policy, authorization, now)
  forget_after_a_step_back(now)
  local by_token = young[policy]
  local who = by_token and by_token[authorization]
  if who == nil then
    by_token = old[policy]
    who = by_token and by_token[authorization]
    if who == nil then return nil end
    keep(policy, authorization, who)
  end
  return now < who.ends and who or nil
end

-- When the response comes: keeps what authz said of `asked`, if it said it under the policy that the route has.
local function remember(metadata, asked, now)
  local said = metadata:get(AUTHZ)
  if said == nil or said[CALLER] == nil or said[UNTIL] == nil or said[EPOCH] ~= asked.epoch then return end
  forget_after_a_step_back(now)
  local ends = math.min(said[UNTIL], now + CACHE_SECONDS)
  keep(asked.policy, asked.authorization, new_caller(said[SUBJECT], said[TIER], said[CALLER], ends))
end

return {recall = recall, remember = remember}
