---Which buffers are sent to the server.
local options = require("keystate.options")

local M = {}

-- By their names these hold secrets; the same names as the server's.
local SECRET_NAMES = {
  ".env*",
  "*.pem",
  "*.key",
  "*.p12",
  "*.pfx",
  "*.keystore",
  "id_rsa*",
  "id_ed25519*",
  "id_ecdsa*",
  ".netrc",
  ".pgpass",
  ".npmrc",
  ".pypirc",
  "credentials*",
  "secrets*",
}

---@param path string
---@return boolean
function M.is_secret(path)
  local name = vim.fs.basename(path):lower()
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
  if M.is_secret(vim.api.nvim_buf_get_name(buf)) then
    return "its name says that it holds secrets"
  end
  if vim.b[buf].keystate_disabled then
    return "disabled here"
  end
end

return M
