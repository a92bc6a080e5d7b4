---Which buffers are sent to the server.
local options = require("keystate.options")

local M = {}

-- By their names these hold secrets; the same names and folders as the server's.
local SECRET_NAMES = {
  ".env*",
  "*.env",
  "*.env.*",
  "*.pem",
  "*.key",
  "*.p8",
  "*.p12",
  "*.pfx",
  "*.keystore",
  "*.jks",
  "*.kdbx",
  "*.ppk",
  "id_rsa*",
  "id_dsa*",
  "id_ed25519*",
  "id_ecdsa*",
  ".netrc",
  ".pgpass",
  ".npmrc",
  ".pypirc",
  ".git-credentials",
  ".htpasswd",
  ".vault-token",
  "*.tfvars*",
  "*.tfstate*",
  "credentials*",
  "service-account*.json",
  "client_secret*.json",
  "secrets*",
  "*secrets.*",
  "*secret.json",
  "*secret.yaml",
  "*secret.yml",
  "*secret.toml",
  "*secret.ini",
  "*secret.txt",
  "*secret.properties",
}
local SECRET_FOLDERS = { ".ssh", ".aws", ".kube", ".gnupg", ".docker" }

---@param path string
---@return boolean
function M.is_secret(path)
  local folders = vim.split(vim.fs.normalize(path, { expand_env = false }):lower(), "/", { plain = true })
  local name = table.remove(folders)
  for _, folder in ipairs(folders) do
    if vim.list_contains(SECRET_FOLDERS, folder) then
      return true
    end
  end
  for _, names in ipairs({ SECRET_NAMES, options.current.secret_names }) do
    for _, glob in ipairs(names) do
      if vim.glob.to_lpeg(glob:lower()):match(name) then
        return true
      end
    end
  end
  return false
end

---Why a buffer is left alone; nil where it is not.
---@param buf integer
---@return string?
function M.refused(buf)
  if vim.bo[buf].buftype ~= "" then
    return ("not a file but %s"):format(vim.bo[buf].buftype)
  end
  local name = vim.api.nvim_buf_get_name(buf)
  if name == "" then
    return "it has no name yet"
  end
  if M.is_secret(name) then
    return "its name says that it holds secrets"
  end
  if vim.b[buf].keystate_disabled then
    return "disabled here"
  end
end

return M
