---keystate: inline code completion. What mappings, statuslines and other plugins call.
local M = {}

---Start, with what the user wants different; once.
---@param given? keystate.Options|table see `:help keystate-options`
function M.setup(given)
  local options = require("keystate.options")
  local problems
  options.current, problems = options.read(given)
  for _, problem in ipairs(problems) do
    vim.notify("keystate: " .. problem, vim.log.levels.WARN)
  end
  local program = options.current.cmd[1]
  if vim.fn.executable(program) ~= 1 then
    local message = ("%s is not on PATH; name the server's command in the option cmd"):format(program)
    require("keystate.status").set({ kind = "error", message = message })
    vim.notify_once("keystate: " .. message, vim.log.levels.WARN)
    return
  end
  if options.current.keys then
    require("keystate.keys").map(options.current.keys)
  end
  require("keystate.server").enable()
end

local function view()
  return require("keystate.view").current()
end

---@return boolean whether a suggestion is shown at the cursor
function M.visible()
  return view().visible(vim.api.nvim_get_current_buf()) ~= nil
end

---Take what is shown, or its next word or line. Safe in any mapping: the text comes right after.
---@param part? "all"|"word"|"line"
---@return boolean did false where nothing is shown, and nothing is done
function M.accept(part)
  if not M.visible() then
    return false
  end
  vim.schedule(function()
    vim.api.nvim_feedkeys(require("keystate.acceptance").keys(part or "all"), "in", false)
  end)
  return true
end

function M.accept_word()
  return M.accept("word")
end

function M.accept_line()
  return M.accept("line")
end

function M.next()
  view().cycle(vim.api.nvim_get_current_buf(), 1)
end

function M.previous()
  view().cycle(vim.api.nvim_get_current_buf(), -1)
end

function M.dismiss()
  view().dismiss(vim.api.nvim_get_current_buf())
end

---Ask for a suggestion here and now.
function M.suggest()
  view().suggest(vim.api.nvim_get_current_buf())
end

---Change settings of the server while it runs.
---@param settings table<string, any>
function M.configure(settings)
  require("keystate.server").configure(settings)
end

---@return keystate.Status
function M.state()
  return require("keystate.status").current()
end

local SIGNS = { starting = "…", ready = "✓", busy = "⋯", off = "-", error = "!" }

---For a statusline: the name and a sign; empty where the server has no part in the buffer.
---@return string
function M.status()
  local status = M.state()
  local server = require("keystate.server")
  if status.kind ~= "error" and not server.client(vim.api.nvim_get_current_buf()) then
    return ""
  end
  local kind = server.is_enabled() and status.kind or "off"
  return "keystate " .. (SIGNS[kind] or kind)
end

return M
