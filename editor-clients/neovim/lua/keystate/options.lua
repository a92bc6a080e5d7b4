---What a user can set. Checked once, in `setup()`.
local M = {}

---@class keystate.Keys
---@field accept string|false take all of the suggestion
---@field accept_word string|false take its next word
---@field accept_line string|false take its next line
---@field next string|false show the next alternative
---@field previous string|false show the previous one
---@field dismiss string|false hide it
---@field suggest string|false ask for one

---@class keystate.Options
---@field cmd string[] the server's command line
---@field filetypes string[]|nil where it is on; nil: wherever the server has something to say
---@field settings table<string, any> the server's settings, by the names in its README
---@field share_engine "auto"|"always"|"never" whether several Neovims hold the model once
---@field ghost_text "auto"|"builtin"|"plugin" who draws; auto: the editor where it can
---@field debounce_ms integer rest before a request, where the plugin draws
---@field keys keystate.Keys|false false: map nothing
---@field secret_names string[] names of files that are never sent or read, as globs, besides the known ones

---@return string program the one on PATH, else that of the checkout which this file is in
local function program()
  local file = vim.uv.fs_realpath(debug.getinfo(1, "S").source:sub(2))
  local root = file and vim.fn.fnamemodify(file, ":h:h:h:h:h")
  local built = root and vim.fs.joinpath(root, ".venv", "bin", "keystate")
  local is_built = built and vim.fn.executable(built) == 1
  return vim.fn.executable("keystate") ~= 1 and is_built and built --[[@as string]] or "keystate"
end

---@return keystate.Options
function M.defaults()
  return {
    cmd = { program(), "serve", "--log-file", M.log_file() },
    filetypes = nil,
    settings = {},
    share_engine = "auto",
    ghost_text = "auto",
    debounce_ms = 50,
    keys = {
      accept = "<Tab>",
      accept_word = "<M-Right>",
      accept_line = "<M-C-Right>",
      next = "<M-]>",
      previous = "<M-[>",
      dismiss = "<C-]>",
      suggest = "<M-Bslash>",
    },
    secret_names = {},
  }
end

---@return string path where the server logs, unless `cmd` says otherwise
function M.log_file()
  return vim.fs.joinpath(vim.fn.stdpath("log") --[[@as string]], "keystate.log")
end

---@type table<string, string|string[]>
local TYPES = {
  cmd = "table",
  filetypes = { "table", "nil" },
  settings = "table",
  share_engine = "string",
  ghost_text = "string",
  debounce_ms = "number",
  keys = { "table", "boolean" },
  secret_names = "table",
}

---@type table<string, string[]>
local CHOICES = {
  ghost_text = { "auto", "builtin", "plugin" },
  share_engine = { "auto", "always", "never" },
}

---Options with the defaults where nothing is given.
---@param given table?
---@return keystate.Options options
---@return string[] problems a line for each that was not taken
function M.read(given)
  local options = M.defaults()
  local problems = {} ---@type string[]
  for name, value in pairs(given or {}) do
    local types = TYPES[name]
    if types == nil then
      local known = vim.tbl_keys(TYPES)
      table.sort(known)
      table.insert(problems, ("unknown option %s (there are %s)"):format(name, table.concat(known, ", ")))
    elseif not vim.list_contains(type(types) == "table" and types or { types }, type(value)) then
      table.insert(
        problems,
        ("option %s is a %s, expected a %s"):format(name, type(value), vim.inspect(types))
      )
    elseif name == "keys" and type(value) == "table" then
      options.keys = vim.tbl_extend("force", options.keys, M.known_keys(value, problems))
    else
      options[name] = value
    end
  end
  for name, choices in pairs(CHOICES) do
    if not vim.list_contains(choices, options[name]) then
      local problem = '%s is "%s", expected %s, %s or %s'
      table.insert(problems, problem:format(name, options[name], unpack(choices)))
      options[name] = "auto"
    end
  end
  table.sort(problems)
  return options, problems
end

---@param keys table<string, any>
---@param problems string[] appended to
---@return table<string, string|false>
function M.known_keys(keys, problems)
  local names = M.defaults().keys
  local taken = {}
  for name, lhs in pairs(keys) do
    if names[name] == nil then
      table.insert(problems, ("unknown key keys.%s"):format(name))
    elseif lhs ~= false and type(lhs) ~= "string" then
      table.insert(problems, ("keys.%s is a %s, expected a string or false"):format(name, type(lhs)))
    else
      taken[name] = lhs
    end
  end
  return taken
end

---What holds now; `setup()` replaces it.
---@type keystate.Options
M.current = M.defaults()

return M
