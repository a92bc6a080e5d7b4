---Tells the server early where the cursor stands, so that it reads up to there before one types.
local server = require("keystate.server")
local view = require("keystate.view")

local M = {}

-- Rest after which a jump is one; typing is told by the text itself.
local REST_MS = 100

---@param client vim.lsp.Client
---@param buf integer
local function tell(client, buf)
  if vim.api.nvim_get_current_buf() ~= buf or client:is_stopped() then
    return
  end
  local position = vim.lsp.util.make_position_params(0, client.offset_encoding)
  client:notify("keystate/cursorMoved", position)
end

---@param client vim.lsp.Client
---@param buf integer
function M.attach(client, buf)
  local timer = assert(vim.uv.new_timer())
  local group = vim.api.nvim_create_augroup("keystate.cursor:" .. buf, { clear = true })
  vim.api.nvim_create_autocmd({ "CursorMoved", "InsertEnter", "BufEnter" }, {
    group = group,
    buffer = buf,
    callback = function()
      if server.is_enabled() then
        timer:start(
          REST_MS,
          0,
          vim.schedule_wrap(function()
            tell(client, buf)
          end)
        )
      end
    end,
  })
  vim.api.nvim_create_autocmd("LspDetach", {
    group = group,
    buffer = buf,
    callback = function(event)
      if event.data.client_id == client.id then
        timer:close()
        view.current().detach(buf)
        vim.api.nvim_del_augroup_by_id(group)
      end
    end,
  })
end

return M
