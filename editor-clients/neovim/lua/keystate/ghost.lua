---Ghost text, drawn by ourselves: inline virtual text at the cursor, further lines below it.
local M = {}

local namespace = vim.api.nvim_create_namespace("keystate.ghost")

vim.api.nvim_set_hl(
  0,
  "KeystateGhost",
  { link = vim.fn.hlexists("ComplHint") == 1 and "ComplHint" or "NonText", default = true }
)

---@param place keystate.Place
---@param text string not empty
---@param hint? string shown after it, such as "(2/3)"
function M.show(place, text, hint)
  M.hide(place.buf)
  -- Virtual text knows no tab stops.
  local tab = (" "):rep(vim.bo[place.buf].tabstop)
  local lines = {} ---@type [string, string][][]
  for line in vim.gsplit(text, "\n", { plain = true }) do
    table.insert(lines, { { (line:gsub("\t", tab)), "KeystateGhost" } })
  end
  if hint then
    table.insert(lines[#lines], { " " .. hint, "KeystateGhost" })
  end
  vim.api.nvim_buf_set_extmark(place.buf, namespace, place.row, place.col, {
    virt_text = lines[1],
    virt_text_pos = "inline",
    virt_lines = #lines > 1 and vim.list_slice(lines, 2) or nil,
    hl_mode = "combine",
  })
end

---@param buf integer
function M.hide(buf)
  if vim.api.nvim_buf_is_valid(buf) then
    vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  end
end

---@param buf integer
---@return boolean
function M.is_shown(buf)
  return #vim.api.nvim_buf_get_extmarks(buf, namespace, 0, -1, { limit = 1 }) > 0
end

return M
