---Where the cursor stands in a buffer, and the text around it.
local M = {}

---@class keystate.Place
---@field buf integer
---@field tick integer the buffer's changedtick
---@field row integer 0-based
---@field col integer bytes
---@field line string

---@param buf integer
---@return keystate.Place? place nil where no window shows the buffer
function M.of(buf)
  local win = vim.api.nvim_get_current_win()
  if vim.api.nvim_win_get_buf(win) ~= buf then
    win = vim.fn.bufwinid(buf)
    if win == -1 then
      return nil
    end
  end
  local row, col = unpack(vim.api.nvim_win_get_cursor(win))
  local line = vim.api.nvim_buf_get_lines(buf, row - 1, row, false)[1] or ""
  return { buf = buf, tick = vim.api.nvim_buf_get_changedtick(buf), row = row - 1, col = col, line = line }
end

---@return boolean
function M.in_insert_mode()
  return vim.startswith(vim.api.nvim_get_mode().mode, "i")
end

---Call a function whenever insert mode is left in a buffer, or the buffer.
---@param group integer of autocommands
---@param buf integer
---@param on_leave fun()
function M.on_leave(group, buf, on_leave)
  vim.api.nvim_create_autocmd("BufLeave", { group = group, buffer = buf, callback = on_leave })
  -- CTRL-C triggers no InsertLeave.
  vim.api.nvim_create_autocmd("ModeChanged", {
    group = group,
    buffer = buf,
    callback = function()
      if vim.startswith(vim.v.event.old_mode, "i") and not vim.startswith(vim.v.event.new_mode, "i") then
        on_leave()
      end
    end,
  })
end

---@param a keystate.Place?
---@param b keystate.Place?
---@return boolean
function M.same(a, b)
  return a ~= nil and b ~= nil and a.buf == b.buf and a.tick == b.tick and a.row == b.row and a.col == b.col
end

---Text between an anchor and the cursor.
---@param place keystate.Place
---@param row integer the anchor
---@param col integer
---@param before string what has to stand before the anchor in its line
---@return string? typed nil where the anchor has gone, or lies behind the cursor
function M.typed_since(place, row, col, before)
  if row > place.row or (row == place.row and col > place.col) then
    return nil
  end
  local line = row == place.row and place.line
    or vim.api.nvim_buf_get_lines(place.buf, row, row + 1, false)[1]
  if line:sub(1, col) ~= before then
    return nil
  end
  local lines = vim.api.nvim_buf_get_text(place.buf, row, col, place.row, place.col, {})
  return table.concat(lines, "\n")
end

return M
