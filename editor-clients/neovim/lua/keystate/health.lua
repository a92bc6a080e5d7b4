---`:checkhealth keystate`.
local M = {}

local health = vim.health

local function check_editor()
  health.start("keystate: editor")
  if vim.fn.has("nvim-0.11") == 1 then
    health.ok(("Neovim %s"):format(vim.version()))
  else
    health.error(("Neovim %s"):format(vim.version()), "Neovim 0.11 or newer is needed")
  end
  local drawn = require("keystate.view").is_builtin() and "vim.lsp.inline_completion" or "the plugin"
  health.info("ghost text is drawn by " .. drawn)
end

---The server's own checks: what stands before `serve` in its command line runs `doctor`, too.
local function check_doctor()
  local doctor = {} ---@type string[]
  for _, word in ipairs(require("keystate.options").current.cmd) do
    if word == "serve" then
      break
    end
    table.insert(doctor, word)
  end
  vim.list_extend(doctor, { "doctor", "--json" })
  local result = vim.system(doctor, { text = true }):wait(60000)
  local ok, report = pcall(vim.json.decode, result.stdout or "")
  if not ok or type(report.checks) ~= "table" then
    local said = vim.split(vim.trim(result.stderr or ""), "\n")
    return health.error(table.concat(doctor, " ") .. " gave no report", said)
  end
  for _, check in ipairs(report.checks) do
    local line = ("%s: %s"):format(check.name, check.detail)
    if check.ok then
      health.ok(line)
    else
      health.error(line)
    end
  end
end

local function check_server()
  health.start("keystate: server")
  local program = require("keystate.options").current.cmd[1]
  if vim.fn.executable(program) ~= 1 then
    return health.error(("%s is not on PATH"):format(program), "see :help keystate-install")
  end
  health.ok(("%s is %s"):format(program, vim.fn.exepath(program)))
  local clients = vim.lsp.get_clients({ name = "keystate" })
  local status = require("keystate.status").current()
  health.info(
    ("%d running; %s%s"):format(#clients, status.kind, status.message and (": " .. status.message) or "")
  )
  for _, client in ipairs(clients) do
    if not client.server_capabilities.inlineCompletionProvider then
      health.error("the running server offers no inline completion", "update it, then :Keystate restart")
    end
  end
  check_doctor()
end

local function check_keys()
  health.start("keystate: keys")
  local keys = require("keystate.options").current.keys
  if not keys or not keys.accept then
    return health.info("no key accepts; :help keystate-keys")
  end
  local found = vim.fn.maparg(keys.accept, "i", false, true)
  if found.desc == "keystate: accept" then
    health.ok(keys.accept .. " accepts where a suggestion is shown, and does what it did elsewhere")
  else
    health.warn(
      ("%s is mapped to something else: %s"):format(keys.accept, found.desc or found.rhs or "?"),
      "call require('keystate').accept() from that mapping; :help keystate-tab"
    )
  end
  for _, name in ipairs({ "cmp", "blink.cmp" }) do
    if package.loaded[name] then
      health.info(name .. " is loaded; :help keystate-tab says how both share <Tab>")
    end
  end
end

function M.check()
  check_editor()
  check_server()
  check_keys()
end

return M
