---Taking a suggestion, or a part of it.
local feedback = require("keystate.feedback")
local server = require("keystate.server")
local suggestion = require("keystate.suggestion")
local view = require("keystate.view")

local M = {}

---@param place keystate.Place
---@param text string
---@param n_replaced integer bytes after the cursor that it stands for
local function insert(place, text, n_replaced)
  -- So that undo takes back what was accepted and leaves what was typed.
  vim.cmd("let &g:undolevels = &g:undolevels")
  local lines = vim.split(text, "\n", { plain = true })
  local row, col = place.row, place.col
  vim.api.nvim_buf_set_text(place.buf, row, col, row, col + n_replaced, lines)
  local last = #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { row + #lines, #lines == 1 and col + last or last })
end

---The keys that take what is shown. Neovim's own menu is closed before: left open, it would put what
---stood in front of it over what was inserted, at the next key.
---@param part "all"|"word"|"line"
---@return string
function M.keys(part)
  local close = vim.fn.pumvisible() == 1 and "<C-x><C-z>" or ""
  local take = ("<Cmd>lua require('keystate.acceptance').take(%q)<CR>"):format(part)
  return vim.api.nvim_replace_termcodes(close .. take, true, true, true)
end

---Insert what is shown in the current buffer, or a part of it.
---@param part "all"|"word"|"line"
function M.take(part)
  local buf = vim.api.nvim_get_current_buf()
  local match = view.current().visible(buf)
  if not match then
    return
  end
  local one, client = match.suggestion, server.client(buf)
  local text = suggestion.cut(match.rest, part)
  local is_whole = text == match.rest
  local tail = one.tail
  local replaces = is_whole and vim.startswith(match.place.line:sub(match.place.col + 1), tail)
  insert(match.place, text, replaces and #tail or 0)
  if is_whole then
    view.current().taken(buf, one)
    feedback.accepted(client, match.item, buf)
  else
    feedback.partially_accepted(client, match.item, #match.typed + #text)
  end
end

return M
