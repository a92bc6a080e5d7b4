---`:Keystate`.
local M = {}

---@param buf integer
---@return string[] lines
local function describe(buf)
  local server = require("keystate.server")
  local status = require("keystate.status").current()
  local client = server.client(buf)
  local refused = require("keystate.buffers").refused(buf)
  local here = client and "on" or ("off" .. (refused and (": " .. refused) or ""))
  local said = { status.kind }
  if status.message and status.message ~= status.kind then
    table.insert(said, status.message)
  end
  local lines = {
    "keystate: " .. table.concat(said, ", "),
    ("this buffer: %s"):format(server.is_enabled() and here or "off, disabled"),
    ("ghost text: %s"):format(
      require("keystate.view").is_builtin() and "vim.lsp.inline_completion" or "plugin"
    ),
  }
  for _, name in ipairs({ "model", "device" }) do
    if status[name] then
      table.insert(lines, ("%s: %s"):format(name, status[name]))
    end
  end
  return lines
end

---@param on boolean
---@param scope string?
local function set_enabled(on, scope)
  local server, buf = require("keystate.server"), vim.api.nvim_get_current_buf()
  if scope ~= "buffer" then
    return server.set_enabled(on)
  end
  vim.b[buf].keystate_disabled = not on or nil
  local client = server.client(buf)
  local view = require("keystate.view").current()
  if not client and on then
    server.start_in(buf)
  elseif client and on and server.is_enabled() then
    view.attach(client, buf)
  elseif client then
    view.detach(buf)
  end
end

---@param scope string?
---@return boolean
local function is_enabled(scope)
  return require("keystate.server").is_enabled() and not (scope == "buffer" and vim.b.keystate_disabled)
end

---@type table<string, fun(scope?: string)>
local ACTIONS = {
  enable = function(scope)
    set_enabled(true, scope)
  end,
  disable = function(scope)
    set_enabled(false, scope)
  end,
  toggle = function(scope)
    set_enabled(not is_enabled(scope), scope)
  end,
  status = function()
    for _, line in ipairs(describe(vim.api.nvim_get_current_buf())) do
      vim.api.nvim_echo({ { line } }, true, {})
    end
  end,
  log = function()
    local path = require("keystate.options").log_file()
    if not vim.uv.fs_stat(path) then
      path = vim.lsp.log.get_filename()
    end
    vim.cmd.tabnew(vim.fn.fnameescape(path))
    vim.cmd.normal({ "G", bang = true })
  end,
  restart = function()
    require("keystate.server").restart()
  end,
}

---@param arguments string[]
function M.run(arguments)
  local action = ACTIONS[arguments[1]]
  local scope = arguments[2]
  if not action or #arguments > 2 or (scope and scope ~= "buffer") then
    local names = vim.tbl_keys(ACTIONS)
    table.sort(names)
    local message = ":Keystate takes %s; enable, disable and toggle with `buffer` for this one alone"
    return vim.notify(message:format(table.concat(names, ", ")), vim.log.levels.ERROR)
  end
  action(scope)
end

---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local names = line:match("^%s*%S+%s+%S+%s") and { "buffer" } or vim.tbl_keys(ACTIONS)
  table.sort(names)
  return vim.tbl_filter(function(name)
    return vim.startswith(name, lead)
  end, names)
end

return M
