---Keys, each of which does what it did before wherever no suggestion is shown.
local acceptance = require("keystate.acceptance")
local view = require("keystate.view")

local M = {}

---@type table<string, vim.api.keyset.get_keymap>
local before = {}

local function keys(notation)
  return vim.api.nvim_replace_termcodes(notation, true, true, true)
end

---An expression's value as the mapping would have it: keys stand as their codes in a mapping that
---has been made, and `<SID>` is its script.
---@param map vim.api.keyset.get_keymap
---@return string
local function evaluate(map)
  local rhs = keys((map.rhs:gsub("<SID>", ("<SNR>%d_"):format(map.sid))))
  -- A byte that is no code and the same as the codes' first is written as three.
  return tostring(vim.api.nvim_eval((rhs:gsub("\128\254X", "\128"))))
end

---Have the key do what it did before.
---@param lhs string
---@return string typed what an `<expr>` mapping gives
local function fall_through(lhs)
  local map = before[lhs]
  if not map or vim.tbl_isempty(map) then
    local char = lhs:match("^<[AM]%-([^<>])>$")
    if char then
      -- <Esc> and a character in quick succession arrive as one; unmapped, Neovim parts them again.
      vim.api.nvim_feedkeys(keys("<Esc>") .. char, "im", false)
      return ""
    end
    return keys(lhs)
  end
  local typed ---@type string
  local has_codes = true
  if map.expr == 1 then
    typed = map.callback and (map.callback() or "") or evaluate(map)
    has_codes = map.callback ~= nil and map.replace_keycodes == 1
    typed = has_codes and keys(typed) or typed
  elseif map.callback then
    return keys(("<Cmd>lua require('keystate.keys').run(%q)<CR>"):format((lhs:gsub("<", "<lt>"))))
  else
    typed = keys((map.rhs:gsub("<SID>", ("<SNR>%d_"):format(map.sid))))
  end
  -- Unless it leads to itself, what it was mapped to is mapped further.
  local is_last = map.noremap == 1 or vim.startswith(typed, keys(lhs))
  vim.api.nvim_feedkeys(typed, is_last and "in" or "im", not has_codes)
  return ""
end

---@param lhs string
function M.run(lhs)
  before[lhs].callback()
end

---A menu whose entry is selected has the first claim on a key, and a snippet on <Tab>, while there is
---a place in it to go to.
---@param lhs string
local function is_claimed(lhs)
  return (vim.fn.pumvisible() == 1 and vim.fn.complete_info({ "selected" }).selected ~= -1)
    or (keys(lhs) == "\t" and vim.snippet.active({ direction = 1 }))
end

---@param lhs string|false
---@param act fun(): string keys that do it
---@param always boolean|nil whether it acts where nothing is shown, too
---@param desc string
local function map(lhs, act, always, desc)
  if not lhs then
    return
  end
  local found = vim.fn.maparg(lhs, "i", false, true)
  if found.buffer ~= 1 and found.desc ~= desc then
    before[lhs] = found
  end
  vim.keymap.set("i", lhs, function()
    local shown = view.current().visible(vim.api.nvim_get_current_buf())
    if always or (shown and not is_claimed(lhs)) then
      return act()
    end
    return fall_through(lhs)
  end, { expr = true, replace_keycodes = false, desc = desc })
end

---@param part "all"|"word"|"line"
---@return fun(): string
local function take(part)
  return function()
    return acceptance.keys(part)
  end
end

---@param name string a function of `require("keystate")`
---@return fun(): string
local function call(name)
  local act = keys(("<Cmd>lua require('keystate').%s()<CR>"):format(name))
  return function()
    return act
  end
end

---@param wanted keystate.Keys
function M.map(wanted)
  map(wanted.accept, take("all"), nil, "keystate: accept")
  map(wanted.accept_word, take("word"), nil, "keystate: accept word")
  map(wanted.accept_line, take("line"), nil, "keystate: accept line")
  map(wanted.next, call("next"), nil, "keystate: next alternative")
  map(wanted.previous, call("previous"), nil, "keystate: previous alternative")
  map(wanted.dismiss, call("dismiss"), nil, "keystate: dismiss")
  map(wanted.suggest, call("suggest"), true, "keystate: suggest")
end

return M
