---Keys, each of which does what it did before wherever no suggestion is shown.
local view = require("keystate.view")

local M = {}

---@type table<string, vim.api.keyset.get_keymap>
local before = {}

local function keys(notation)
  return vim.api.nvim_replace_termcodes(notation, true, true, true)
end

---What the key was mapped to, done now.
---@param lhs string
---@return string typed
local function fall_through(lhs)
  local map = before[lhs]
  if not map or vim.tbl_isempty(map) then
    return keys(lhs)
  end
  local typed ---@type string
  if map.expr == 1 then
    local given = map.callback and map.callback() or (not map.callback and vim.api.nvim_eval(map.rhs)) or ""
    typed = (map.replace_keycodes == 1 or not map.callback) and keys(given) or given
  elseif map.callback then
    return keys(("<Cmd>lua require('keystate.keys').run(%q)<CR>"):format((lhs:gsub("<", "<lt>"))))
  else
    typed = keys((map.rhs:gsub("<SID>", ("<SNR>%d_"):format(map.sid))))
  end
  if map.noremap == 1 or vim.startswith(typed, keys(lhs)) then
    return typed
  end
  -- What it was mapped to is mapped further.
  vim.api.nvim_feedkeys(typed, "im", false)
  return ""
end

---@param lhs string
function M.run(lhs)
  before[lhs].callback()
end

---A menu whose entry is selected has the first claim on a key.
local function menu_has_it()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ "selected" }).selected ~= -1
end

---@param lhs string|false
---@param call string what `require("keystate.do")` is to do
---@param always boolean|nil whether it acts where nothing is shown, too
---@param desc string
local function map(lhs, call, always, desc)
  if not lhs then
    return
  end
  local found = vim.fn.maparg(lhs, "i", false, true)
  if found.buffer ~= 1 and found.desc ~= desc then
    before[lhs] = found
  end
  local act = keys(("<Cmd>lua %s<CR>"):format(call))
  vim.keymap.set("i", lhs, function()
    local shown = view.current().visible(vim.api.nvim_get_current_buf())
    if always or (shown and not menu_has_it()) then
      return act
    end
    return fall_through(lhs)
  end, { expr = true, replace_keycodes = false, desc = desc })
end

---@param wanted keystate.Keys
function M.map(wanted)
  map(wanted.accept, "require('keystate.acceptance').take('all')", nil, "keystate: accept")
  map(wanted.accept_word, "require('keystate.acceptance').take('word')", nil, "keystate: accept word")
  map(wanted.accept_line, "require('keystate.acceptance').take('line')", nil, "keystate: accept line")
  map(wanted.next, "require('keystate').next()", nil, "keystate: next alternative")
  map(wanted.previous, "require('keystate').previous()", nil, "keystate: previous alternative")
  map(wanted.dismiss, "require('keystate').dismiss()", nil, "keystate: dismiss")
  map(wanted.suggest, "require('keystate').suggest()", true, "keystate: suggest")
end

return M
