---Stands between Neovim's client and the server, for `vim.lsp.inline_completion`.
---
---Neovim 0.12 asks 200 ms after each key and shows whatever comes, even where one has typed on. In
---between, requests that a kept suggestion answers are answered from it, and answers to a place
---that was left become null, which leaves the ghost text to the request that follows.
local buffers = require("keystate.buffers")
local kept = require("keystate.kept")
local place = require("keystate.place")
local suggestion = require("keystate.suggestion")

local M = {}

-- Above any that Neovim gives to a request in one session.
local own_id = 2 ^ 30

local INVOKED = 1

---Buffers whose next request is to be sent as one that the user asked for.
---@type table<integer, fun(match: keystate.Match?)>
local invoked = {}

---@param buf integer
---@param on_shown fun(match: keystate.Match?)
function M.invoke_next(buf, on_shown)
  invoked[buf] = on_shown
end

---@param match keystate.Match
---@param encoding "utf-8"|"utf-16"|"utf-32"
---@return lsp.InlineCompletionList list what is left of it at the cursor, what is shown first
local function rest_of(match, encoding)
  local here = match.place
  local position = { line = here.row, character = vim.str_utfindex(here.line, encoding, here.col, false) }
  local items = {}
  match.suggestion.told = {}
  for _, alternative in ipairs(kept.alternatives(match)) do
    table.insert(match.suggestion.told, alternative.index)
    table.insert(items, {
      insertText = alternative.rest,
      range = { start = position, ["end"] = position },
      command = alternative.item.raw.command,
    })
  end
  return { items = items }
end

---The server's answer as Neovim takes it, which shows and inserts "\r" as a character.
---@param answer lsp.InlineCompletionList|lsp.InlineCompletionItem[]
---@return lsp.InlineCompletionList
local function with_unix_newlines(answer)
  local items = vim.tbl_map(function(item)
    local text = item.insertText
    local is_plain = type(text) == "string"
    return vim.tbl_extend("force", item, { insertText = is_plain and suggestion.unix(text) or text })
  end, answer.items or answer)
  return { items = items }
end

---@param server vim.lsp.rpc.PublicClient
---@param encoding fun(): "utf-8"|"utf-16"|"utf-32"
---@param on_answered fun(buf: integer) called when Neovim has taken an answer
---@return vim.lsp.rpc.PublicClient
function M.between(server, encoding, on_answered)
  local wire = setmetatable({}, { __index = server }) ---@type vim.lsp.rpc.PublicClient

  function wire.request(method, params, callback, on_reply)
    if method ~= "textDocument/inlineCompletion" then
      return server.request(method, params, callback, on_reply)
    end
    local buf = vim.uri_to_bufnr(params.textDocument.uri)
    local on_shown = invoked[buf]
    invoked[buf] = nil
    local match = kept.find(buf)
    -- Neovim takes the position from the current window, whichever buffer the request is about.
    local is_elsewhere = vim.api.nvim_get_current_buf() ~= buf
    if is_elsewhere or buffers.refused(buf) or (match and not on_shown) then
      own_id = own_id + 1
      local id = own_id
      vim.schedule(function()
        if on_reply then
          on_reply(id)
        end
        local now = match and kept.find(buf)
        callback(nil, now and rest_of(now, encoding()) or { items = {} }, id)
        on_answered(buf)
      end)
      return true, id
    end
    if on_shown then
      params = vim.tbl_extend("force", params, { context = { triggerKind = INVOKED } })
    end
    local asked = place.of(buf)
    return server.request(method, params, function(err, answer, id)
      if err or not answer or not asked then
        return callback(err, answer, id)
      end
      if not place.same(asked, place.of(buf)) then
        return callback(nil, nil, id)
      end
      local new = suggestion.from_answer(
        answer.items or answer,
        asked.row,
        asked.col,
        asked.line,
        encoding(),
        on_shown ~= nil
      )
      if new then
        kept.add(buf, new)
      end
      callback(nil, with_unix_newlines(answer), id)
      on_answered(buf)
      if on_shown then
        on_shown(kept.find(buf))
      end
    end, on_reply)
  end

  function wire.notify(method, params)
    -- Neovim cancels what it believes to be under way.
    if method == "$/cancelRequest" and params.id >= 2 ^ 30 then
      return true
    end
    return server.notify(method, params)
  end

  return wire
end

return M
