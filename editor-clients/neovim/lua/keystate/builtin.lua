---Suggestions as one types, drawn by Neovim 0.12's `vim.lsp.inline_completion`.
local feedback = require("keystate.feedback")
local kept = require("keystate.kept")
local place = require("keystate.place")
local wire = require("keystate.wire")

local M = {}

---@type table<integer, vim.lsp.Client>
local active = {}

-- Neovim draws in this one.
local namespace = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")

---@return boolean
function M.is_there()
  return vim.lsp.inline_completion ~= nil
end

---@param buf integer
local function hide(buf)
  if vim.api.nvim_buf_is_valid(buf) then
    vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  end
end

---@param buf integer
---@return boolean
local function is_shown(buf)
  return #vim.api.nvim_buf_get_extmarks(buf, namespace, 0, -1, { limit = 1 }) > 0
end

---Neovim has taken an answer; for `wire.between`.
---@param buf integer
function M.answered(buf)
  local match = M.visible(buf)
  if match then
    feedback.shown(active[buf], match.item)
  end
end

---@param buf integer
---@return boolean
local function is_alone(buf)
  return #vim.lsp.get_clients({ bufnr = buf, method = "textDocument/inlineCompletion" }) == 1
end

---Hide what Neovim goes on showing though one has typed something else.
---@param buf integer
local function guard(buf)
  if not is_shown(buf) or not is_alone(buf) then
    return
  end
  local match = kept.find(buf)
  -- Past its first line Neovim would draw the rest where it stood; it is drawn anew with the answer
  -- to the next request, which the kept suggestion gives.
  if not match or match.typed:find("\n", 1, true) then
    hide(buf)
  end
end

---@param buf integer
---@return keystate.Match?
function M.visible(buf)
  if active[buf] and is_shown(buf) then
    return kept.find(buf)
  end
end

---Have Neovim make a request, as if the cursor had moved.
---@param buf integer
local function ask(buf)
  vim.api.nvim_exec_autocmds("CursorMovedI", { buffer = buf, modeline = false })
end

---Have Neovim forget the suggestion that it shows.
---@param buf integer
local function abort(buf)
  vim.lsp.inline_completion.get({
    bufnr = buf,
    on_accept = function() end,
  })
  hide(buf)
end

---@param buf integer
function M.dismiss(buf)
  kept.clear(buf)
  abort(buf)
end

---@param buf integer
---@param old keystate.Suggestion
function M.taken(buf, old)
  kept.drop(buf, old)
  abort(buf)
  -- Neovim's own request, if the key led to one, goes with the abort, which is scheduled.
  vim.schedule(function()
    if active[buf] and vim.api.nvim_get_current_buf() == buf then
      ask(buf)
    end
  end)
end

---@param buf integer
function M.forget(buf)
  if active[buf] then
    M.dismiss(buf)
  end
end

---@param buf integer
---@param on_shown? fun(match: keystate.Match?)
function M.suggest(buf, on_shown)
  if not active[buf] then
    return
  end
  kept.clear(buf)
  hide(buf)
  wire.invoke_next(buf, on_shown or function() end)
  ask(buf)
end

---@param buf integer
---@param step 1|-1
function M.cycle(buf, step)
  local match = M.visible(buf)
  if not match then
    return
  end
  local count = kept.step(match, step)
  if count then
    vim.lsp.inline_completion.select({ bufnr = buf, count = count })
  elseif not match.suggestion.invoked then
    M.suggest(buf, function(new)
      if new and #new.suggestion.items > 1 then
        M.cycle(buf, step)
      end
    end)
  end
end

---@param client vim.lsp.Client
---@param buf integer
function M.attach(client, buf)
  active[buf] = client
  -- Neovim's own part is made after all that is attached.
  vim.schedule(function()
    if active[buf] ~= client or not vim.api.nvim_buf_is_valid(buf) then
      return
    end
    vim.lsp.inline_completion.enable(true, { bufnr = buf })
    local group = vim.api.nvim_create_augroup("keystate.builtin:" .. buf, { clear = true })
    -- After Neovim's own, which draw.
    vim.api.nvim_create_autocmd({ "TextChangedI", "TextChangedP", "CursorMovedI" }, {
      group = group,
      buffer = buf,
      callback = function()
        guard(buf)
      end,
    })
    place.on_leave(group, buf, function()
      kept.clear(buf)
      hide(buf)
      vim.schedule(function()
        -- A mapping may be back already, and have had Neovim ask.
        if active[buf] and not (place.in_insert_mode() and vim.api.nvim_get_current_buf() == buf) then
          abort(buf)
        end
      end)
    end)
  end)
end

---@param buf integer
function M.detach(buf)
  if active[buf] then
    active[buf] = nil
    kept.clear(buf)
    -- Neovim forgets with this; told to by `abort` it would a moment later, when the buffer may be gone.
    hide(buf)
    vim.lsp.inline_completion.enable(false, { bufnr = buf })
    pcall(vim.api.nvim_del_augroup_by_name, "keystate.builtin:" .. buf)
  end
end

return M
