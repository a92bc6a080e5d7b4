---What the server is told about a suggestion's fate, as Copilot's language server is.
local M = {}

---Items that were reported as shown; they are forgotten with the suggestion.
---@type table<keystate.Item, true>
local reported = setmetatable({}, { __mode = "k" })

---@param client vim.lsp.Client?
---@param item keystate.Item
function M.shown(client, item)
  if client and not reported[item] then
    reported[item] = true
    client:notify("textDocument/didShowCompletion", { item = item.raw })
  end
end

---@param client vim.lsp.Client?
---@param item keystate.Item
---@param n_bytes integer of its text that stand in the buffer now, counted from the anchor
function M.partially_accepted(client, item, n_bytes)
  if client then
    client:notify("textDocument/didPartiallyAcceptCompletion", {
      item = item.raw,
      acceptedLength = vim.str_utfindex(item.text, "utf-16", n_bytes, false),
    })
  end
end

---@param client vim.lsp.Client?
---@param item keystate.Item
---@param buf integer
function M.accepted(client, item, buf)
  local command = item.raw.command
  if client and command then
    client:exec_cmd(command, { bufnr = buf })
  end
end

return M
