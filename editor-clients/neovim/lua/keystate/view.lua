---Who shows suggestions: Neovim's own part, or the plugin's.
local builtin = require("keystate.builtin")
local options = require("keystate.options")
local typing = require("keystate.typing")

local M = {}

---@class keystate.View
---@field visible fun(buf: integer): keystate.Match?
---@field attach fun(client: vim.lsp.Client, buf: integer)
---@field detach fun(buf: integer)
---@field forget fun(buf: integer)
---@field dismiss fun(buf: integer)
---@field taken fun(buf: integer, old: keystate.Suggestion)
---@field suggest fun(buf: integer)
---@field cycle fun(buf: integer, step: 1|-1)

---@return boolean
function M.is_builtin()
  return options.current.ghost_text ~= "plugin" and builtin.is_there()
end

---@return keystate.View
function M.current()
  return M.is_builtin() and builtin or typing
end

return M
