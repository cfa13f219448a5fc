-- The decision cache: a token that authz allowed a moment ago is not asked about again. What is kept is authz's decision,
-- for CACHE_SECONDS at most and never past the token's own end; it is kept by the route's conditions and the epoch of the
-- policy, so a changed policy or a revocation finds nothing. Refusals and anonymous callers are never kept.
-- CACHE_SECONDS and CACHE_ENTRIES are written before this text by translate/script.py.

local LONGEST = 8300

-- Two generations: when the younger is full it becomes the older, and what nobody asked for meanwhile is forgotten.
-- In each, a table of tokens by the conditions that they met.
local young, old, count = {}, {}, 0

local function keep(policy, authorization, who)
  if #authorization > LONGEST then return end
  if count >= CACHE_ENTRIES then young, old, count = {}, young, 0 end
  local known = young[policy]
  if known == nil then
    known = {}
    young[policy] = known
  end
  if known[authorization] == nil then count = count + 1 end
  known[authorization] = who
end

-- Who it is; nil where it has to be found out.
local function recall(policy, authorization, now)
  local known = young[policy]
  local who = known and known[authorization]
  if who == nil then
    known = old[policy]
    who = known and known[authorization]
    if who == nil then return nil end
    keep(policy, authorization, who)
  end
  return now < who.ends and who or nil
end

-- On the answer's way back: keep what authz said, if it said it under the policy that this route is of.
local function remember(metadata, asked, now)
  local said = metadata:get(AUTHZ)
  if said == nil or said.caller == nil or said["until"] == nil or said.epoch ~= asked.epoch then return end
  local ends = math.min(said["until"], now + CACHE_SECONDS)
  keep(asked.policy, asked.authorization, caller(said.subject, said.tier, said.caller, ends))
end
