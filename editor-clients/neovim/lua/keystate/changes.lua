---Tells the server of changes that Neovim does not.
local M = {}

---Neovim stops following a buffer that changes while no server is attached, such as after a crash,
---and does not begin again with the next server.
---@param client vim.lsp.Client
---@param buf integer
function M.attach(client, buf)
  vim.api.nvim_buf_attach(buf, false, {
    on_lines = function(_, _, tick, first, stop, new_stop)
      if client:is_stopped() or not client.attached_buffers[buf] then
        return true
      end
      -- Neovim's own part comes first, and would have noted it.
      local util = require("vim.lsp.util")
      if tick and util.buf_versions[buf] ~= tick then
        util.buf_versions[buf] = tick
        require("vim.lsp._changetracking").send_changes(buf, first, stop, new_stop)
      end
    end,
  })
end

return M
