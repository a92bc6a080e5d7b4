---What the server is doing, from its own words where it has any.
local M = {}

---@class keystate.Status
---@field kind "starting"|"ready"|"busy"|"off"|"error"
---@field message? string
---@field model? string
---@field device? string

---@type keystate.Status
local current = { kind = "off", message = "not started" }

---@return keystate.Status
function M.current()
  return current
end

---@param status keystate.Status
function M.set(status)
  current = status
  vim.api.nvim_exec_autocmds("User", { pattern = "KeystateStatus", modeline = false })
  vim.cmd.redrawstatus({ bang = true })
end

---`keystate/status`, sent by the server.
---@param params any
function M.receive(params)
  if type(params) ~= "table" or type(params.kind) ~= "string" then
    return
  end
  local function text(value)
    return type(value) == "string" and value ~= "" and value or nil
  end
  M.set({
    kind = params.kind,
    message = text(params.message),
    model = text(params.model) or current.model,
    device = text(params.device) or current.device,
  })
end

return M
