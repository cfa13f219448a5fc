-- What has to be known of a request when its answer comes back. Envoy keeps nothing of a request for its answer but
-- metadata, which is dear to read, so that it is looked at only while something is noted. An id of ours, not the
-- request's: a client could choose that one, and have another's answer taken for its own.

local noted, notes, last_note = {}, 0, 0
-- Requests whose answer never came back leave theirs behind. In two generations, so that those under way keep theirs.
local earlier, earlier_notes = {}, 0
local MAX_NOTES = 10000

local function note(metadata, what)
  if notes >= MAX_NOTES then earlier, earlier_notes, noted, notes = noted, notes, {}, 0 end
  last_note = last_note + 1
  noted[last_note], notes = what, notes + 1
  metadata:set("mgw", "note", last_note)
end

local function noted_of(metadata)
  local own = metadata:get("mgw")
  local id = own and own.note
  local what = id and noted[id]
  if what then
    noted[id], notes = nil, notes - 1
  elseif id then
    what = earlier[id]
    if what then earlier[id], earlier_notes = nil, earlier_notes - 1 end
  end
  return what
end

local function is_noted()
  return notes + earlier_notes > 0
end
