---The last suggestions of each buffer, so that typing along one, and coming back to it with
---backspace, needs nothing from the server. They were made for the text as it stood: a change
---anywhere but in what is typed along one drops it.
local place = require("keystate.place")
local suggestion = require("keystate.suggestion")

local M = {}

-- As many places back as one is likely to return to.
local MAX_KEPT = 16

---Newest first.
---@type table<integer, keystate.Suggestion[]>
local kept = {}

---Take account of a change of whole lines.
---@param one keystate.Suggestion
---@param first integer the lines from here
---@param stop integer to before here
---@param new_stop integer end before here now
---@return boolean is_kept false where other lines than its own have changed, or its own have gone
local function follow(one, first, stop, new_stop)
  -- The last two: lines that are put right before its own, or right below them.
  if first < one.row or stop > one.stop or stop == one.row or first == one.stop then
    return false
  end
  one.stop = one.stop + new_stop - stop
  return one.stop > one.row
end

---Have a list follow its buffer for as long as it is the buffer's.
---@param buf integer
---@param list keystate.Suggestion[]
local function watch(buf, list)
  local function clear()
    if kept[buf] == list then
      kept[buf] = nil
    end
  end
  vim.api.nvim_buf_attach(buf, false, {
    on_lines = function(_, _, _, first, stop, new_stop)
      if kept[buf] ~= list then
        return true
      end
      for i = #list, 1, -1 do
        if not follow(list[i], first, stop, new_stop) then
          table.remove(list, i)
        end
      end
    end,
    on_reload = clear,
    on_detach = clear,
  })
end

---@param buf integer
---@param new keystate.Suggestion made for the text as it stands
function M.add(buf, new)
  local list = kept[buf]
  if not list then
    list = {}
    kept[buf] = list
    watch(buf, list)
  end
  table.insert(list, 1, new)
  list[MAX_KEPT + 1] = nil
end

---@param buf integer
function M.clear(buf)
  kept[buf] = nil
end

---@param buf integer
---@param old keystate.Suggestion
function M.drop(buf, old)
  local list = kept[buf] or {}
  for i = #list, 1, -1 do
    if list[i] == old then
      table.remove(list, i)
    end
  end
end

---@class keystate.Match
---@field suggestion keystate.Suggestion
---@field item keystate.Item the one that is shown
---@field typed string what was typed of it
---@field rest string what is left of it; not empty
---@field place keystate.Place

---The newest suggestion that goes on from where the cursor stands.
---@param buf integer
---@return keystate.Match?
function M.find(buf)
  local here = kept[buf] and place.of(buf)
  if not here then
    return nil
  end
  local after = here.line:sub(here.col + 1)
  for _, one in ipairs(kept[buf]) do
    -- Below the cursor's line there is nothing of what was typed along.
    local typed = here.row == one.stop - 1 and place.typed_since(here, one.row, one.col, one.before)
    local item = one.items[one.index]
    local rest = typed and suggestion.rest(one, item, typed, after)
    if typed and rest then
      return { suggestion = one, item = item, typed = typed, rest = rest, place = here }
    end
  end
end

---Of a match's alternatives, those that go on from the cursor too, what is shown first.
---@param match keystate.Match
---@return { index: integer, item: keystate.Item, rest: string }[]
function M.alternatives(match)
  local one = match.suggestion
  local after = match.place.line:sub(match.place.col + 1)
  local found = {}
  for i = 0, #one.items - 1 do
    local index = (one.index - 1 + i) % #one.items + 1
    local rest = suggestion.rest(one, one.items[index], match.typed, after)
    if rest then
      table.insert(found, { index = index, item = one.items[index], rest = rest })
    end
  end
  return found
end

---Where an alternative stands in the list that whoever shows it has.
---@param one keystate.Suggestion
---@param index integer
---@return integer
local function position(one, index)
  for i, told in ipairs(one.told or {}) do
    if told == index then
      return i
    end
  end
  return index
end

---Show the next or the previous alternative from now on.
---@param match keystate.Match
---@param step 1|-1
---@return integer? count how far it is from the last one in what was told; nil where there is no other
function M.step(match, step)
  local one = match.suggestion
  local others = M.alternatives(match)
  if #others < 2 then
    return nil
  end
  local before = one.index
  one.index = (step > 0 and others[2] or others[#others]).index
  return position(one, one.index) - position(one, before)
end

return M
