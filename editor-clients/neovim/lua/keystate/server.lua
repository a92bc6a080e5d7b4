---The language server, as Neovim is to start it.
local buffers = require("keystate.buffers")
local builtin = require("keystate.builtin")
local options = require("keystate.options")
local status = require("keystate.status")
local view = require("keystate.view")
local wire = require("keystate.wire")

local M = {}

M.NAME = "keystate"

local is_set_up = false
local is_enabled = true

---Buffers that the server is for, or not, once they have their name.
---@type table<integer, true>
local renamed = {}

---@param buf? integer
---@return vim.lsp.Client?
function M.client(buf)
  return vim.lsp.get_clients({ name = M.NAME, bufnr = buf })[1]
end

---@return boolean
function M.is_enabled()
  return is_enabled
end

---@return "utf-8"|"utf-16"|"utf-32"
local function encoding()
  local client = M.client()
  return client and client.offset_encoding --[[@as "utf-16"]] or "utf-16"
end

---@param dispatchers vim.lsp.rpc.Dispatchers
---@return vim.lsp.rpc.PublicClient
local function start(dispatchers)
  local started = vim.lsp.rpc.start(options.current.cmd, dispatchers)
  return wire.between(started, encoding, builtin.answered)
end

---@param buf integer
---@param on_dir fun(root?: string)
local function root(buf, on_dir)
  renamed[buf] = vim.api.nvim_buf_get_name(buf) == "" or nil
  if not buffers.refused(buf) then
    on_dir(vim.fs.root(buf, { ".git", ".hg", "pyproject.toml", "package.json", "Cargo.toml", "go.mod" }))
  end
end

---One server for all folders: a model is not loaded twice.
---@param client vim.lsp.Client
---@param config vim.lsp.ClientConfig
local function reuse(client, config)
  if client.name ~= M.NAME or client:is_stopped() then
    return false
  end
  local folder = config.root_dir
  local uri = folder and vim.uri_from_fname(folder)
  local known = client.workspace_folders or {}
  local function is_known(one)
    return one.uri == uri
  end
  if folder and client.initialized and not vim.iter(known):any(is_known) then
    local added = { uri = uri, name = folder }
    client.workspace_folders = vim.list_extend(vim.list_slice(known), { added })
    client:notify("workspace/didChangeWorkspaceFolders", { event = { added = { added }, removed = {} } })
  end
  return true
end

---@param client vim.lsp.Client
---@param buf integer
local function on_attach(client, buf)
  if not is_set_up then
    return
  end
  require("keystate.changes").attach(client, buf)
  require("keystate.cursor").attach(client, buf)
  if is_enabled then
    view.current().attach(client, buf)
  end
end

---@return vim.lsp.Config
function M.config()
  local current = options.current
  ---@type vim.lsp.Config
  return {
    cmd = is_set_up and view.is_builtin() and start or current.cmd,
    filetypes = current.filetypes,
    root_dir = root,
    reuse_client = reuse,
    init_options = { shareEngine = current.share_engine },
    settings = { keystate = vim.empty_dict() },
    -- The server reads ahead from the first key on.
    flags = { debounce_text_changes = 0 },
    capabilities = {
      textDocument = { inlineCompletion = { dynamicRegistration = true } },
      experimental = { keystateStatus = true },
    },
    handlers = {
      ["keystate/status"] = function(_, params)
        status.receive(params)
      end,
    },
    before_init = function()
      status.set({ kind = "starting" })
    end,
    on_init = function(client)
      -- Ours says itself when it is ready; another is, once it answers.
      local is_ours = client.server_info and client.server_info.name == M.NAME
      if not is_ours and status.current().kind == "starting" then
        status.set({ kind = "ready" })
      end
    end,
    on_exit = function(code, signal)
      vim.schedule(function()
        if code ~= 0 and signal ~= 15 then
          local said = ("the server ended with exit code %d; :Keystate log says more"):format(code)
          status.set({ kind = "error", message = said })
        else
          status.set({ kind = "off", message = "stopped" })
        end
      end)
    end,
    on_attach = on_attach,
  }
end

---@param glob string
---@return string glob the same for capital and small letters, as names of secret files are compared
local function in_any_case(glob)
  local in_brackets = false
  return (
    glob:gsub(".", function(sign)
      in_brackets = sign == "[" or in_brackets and sign ~= "]"
      return not in_brackets and sign:match("%a") and ("[%s%s]"):format(sign:lower(), sign:upper()) or sign
    end)
  )
end

---@param settings table<string, any>
local function with_settings(settings)
  local secret = vim.tbl_map(in_any_case, options.current.secret_names)
  if #secret > 0 then
    -- What is not sent to the server is not for it to read from the disk, either.
    local given = settings.exclude or {}
    local exclude = type(given) == "table" and vim.list_slice(given) or { given }
    settings = vim.tbl_extend("force", settings, { exclude = vim.list_extend(exclude, secret) })
  end
  local given = vim.tbl_isempty(settings) and vim.empty_dict() or settings
  local at_start = vim.tbl_extend("keep", settings, { shareEngine = options.current.share_engine })
  return { init_options = at_start, settings = { keystate = given } }
end

---Start the server for a buffer, if it is for it.
---@param buf integer
function M.start_in(buf)
  vim.api.nvim_exec_autocmds("FileType", { group = "nvim.lsp.enable", buffer = buf, modeline = false })
end

---Under another name a buffer is another file to the server, or one that is none of its business.
function M.follow_names()
  local group = vim.api.nvim_create_augroup("keystate.names", { clear = true })
  vim.api.nvim_create_autocmd("BufFilePre", {
    group = group,
    callback = function(event)
      local client = M.client(event.buf)
      if client then
        renamed[event.buf] = true
        vim.lsp.buf_detach_client(event.buf, client.id)
      end
    end,
  })
  -- `:write` gives a buffer its first name without the first of these events.
  vim.api.nvim_create_autocmd({ "BufFilePost", "BufWritePost" }, {
    group = group,
    callback = function(event)
      if renamed[event.buf] then
        renamed[event.buf] = nil
        M.start_in(event.buf)
      end
    end,
  })
end

---Start the server for each buffer that it is for.
function M.enable()
  is_set_up = true
  local config = vim.tbl_extend("force", M.config(), with_settings(options.current.settings))
  vim.lsp.config(M.NAME, config)
  vim.lsp.enable(M.NAME)
  M.follow_names()
end

---Settings changed while the server runs; the server is told.
---@param settings table<string, any> those that change
function M.configure(settings)
  options.current.settings = vim.tbl_extend("force", options.current.settings, settings)
  local config = with_settings(options.current.settings)
  vim.lsp.config(M.NAME, config)
  for _, client in ipairs(vim.lsp.get_clients({ name = M.NAME })) do
    client.settings = config.settings
    client:notify("workspace/didChangeConfiguration", { settings = config.settings })
  end
end

---Suggestions everywhere, or nowhere; the server stays, idle.
---@param on boolean
function M.set_enabled(on)
  is_enabled = on
  for _, client in ipairs(vim.lsp.get_clients({ name = M.NAME })) do
    for buf in pairs(client.attached_buffers) do
      if on then
        view.current().attach(client, buf)
      else
        view.current().detach(buf)
      end
    end
  end
end

---Stop the server and start it again, for the same buffers.
function M.restart()
  local clients = vim.lsp.get_clients({ name = M.NAME })
  local bufs = {} ---@type integer[]
  for _, client in ipairs(clients) do
    vim.list_extend(bufs, vim.tbl_keys(client.attached_buffers))
    client:stop()
  end
  local function all_stopped()
    return #vim.lsp.get_clients({ name = M.NAME }) == 0
  end
  if not vim.wait(3000, all_stopped, 20) then
    for _, client in ipairs(clients) do
      client:stop(true)
    end
    vim.wait(1000, all_stopped, 20)
  end
  M.enable()
  for _, buf in ipairs(bufs) do
    if vim.api.nvim_buf_is_loaded(buf) then
      M.start_in(buf)
    end
  end
end

return M
