---Suggestions as one types, where the plugin draws them itself: Neovim 0.11, or by choice.
local buffers = require("keystate.buffers")
local feedback = require("keystate.feedback")
local ghost = require("keystate.ghost")
local kept = require("keystate.kept")
local options = require("keystate.options")
local place = require("keystate.place")
local suggestion = require("keystate.suggestion")

local M = {}

---@class keystate.Typing
---@field client vim.lsp.Client
---@field timer uv.uv_timer_t
---@field seen? keystate.Place what was last answered to; the events of one keystroke are several
---@field request? integer the one under way

---@type table<integer, keystate.Typing>
local active = {}

local INVOKED, AUTOMATIC = 1, 2

---@param buf integer
---@return keystate.Match? match what is shown
function M.visible(buf)
  return active[buf] and ghost.is_shown(buf) and kept.find(buf) or nil
end

---@param buf integer
---@param hint? string
local function draw(buf, hint)
  local match = kept.find(buf)
  if match then
    ghost.show(match.place, match.rest, hint)
    feedback.shown(active[buf].client, match.item)
  else
    ghost.hide(buf)
  end
  return match
end

---@param buf integer
local function cancel(buf)
  local typing = active[buf]
  typing.timer:stop()
  if typing.request then
    typing.client:cancel_request(typing.request)
    typing.request = nil
  end
end

---@param buf integer
---@param kind integer
---@param on_shown? fun(match: keystate.Match)
local function request(buf, kind, on_shown)
  local typing, asked = active[buf], place.of(buf)
  if not typing or not asked or not place.in_insert_mode() or buffers.refused(buf) then
    return
  end
  cancel(buf)
  local client = typing.client
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(buf) },
    position = {
      line = asked.row,
      character = vim.str_utfindex(asked.line, client.offset_encoding, asked.col, false),
    },
    context = { triggerKind = kind },
  }
  local _, id = client:request("textDocument/inlineCompletion", params, function(_, answer, context)
    if not active[buf] then
      return
    end
    if typing.request == context.request_id then
      typing.request = nil
    end
    -- null: a newer request will say. An answer to a place that was left is stale.
    if not answer or not place.in_insert_mode() or not place.same(asked, place.of(buf)) then
      return
    end
    local encoding = client.offset_encoding ---@type "utf-8"|"utf-16"|"utf-32"
    local items = answer.items or answer
    local new = suggestion.from_answer(items, asked.row, asked.col, asked.line, encoding, kind == INVOKED)
    if new then
      kept.add(buf, new)
    end
    local match = draw(buf)
    if match and on_shown then
      on_shown(match)
    end
  end, buf)
  typing.request = id
end

---A key was typed, or the cursor moved.
---@param buf integer
local function refresh(buf)
  local typing, here = active[buf], place.of(buf)
  if not typing or place.same(typing.seen, here) then
    return
  end
  typing.seen = here
  cancel(buf)
  if not draw(buf) then
    typing.timer:start(
      options.current.debounce_ms,
      0,
      vim.schedule_wrap(function()
        request(buf, AUTOMATIC)
      end)
    )
  end
end

---@param buf integer
function M.forget(buf)
  local typing = active[buf]
  if typing then
    cancel(buf)
    typing.seen = nil
    kept.clear(buf)
    ghost.hide(buf)
  end
end

---@param buf integer
function M.dismiss(buf)
  cancel(buf)
  kept.clear(buf)
  ghost.hide(buf)
end

---@param buf integer
---@param old keystate.Suggestion
function M.taken(buf, old)
  kept.drop(buf, old)
  ghost.hide(buf)
end

---Ask now, and wait longer for the answer.
---@param buf integer
---@param on_shown? fun(match: keystate.Match)
function M.suggest(buf, on_shown)
  kept.clear(buf)
  ghost.hide(buf)
  request(buf, INVOKED, on_shown)
end

---Show another alternative; the server is asked for some where there is only one.
---@param buf integer
---@param step 1|-1
function M.cycle(buf, step)
  local match = M.visible(buf)
  if not match then
    return
  end
  local one = match.suggestion
  if kept.step(match, step) then
    draw(buf, ("(%d/%d)"):format(one.index, #one.items))
  elseif not one.invoked then
    M.suggest(buf, function(new)
      if #new.suggestion.items > 1 then
        M.cycle(buf, step)
      end
    end)
  end
end

---@param client vim.lsp.Client
---@param buf integer
function M.attach(client, buf)
  M.detach(buf)
  active[buf] = { client = client, timer = assert(vim.uv.new_timer()) }
  local group = vim.api.nvim_create_augroup("keystate.typing:" .. buf, { clear = true })
  vim.api.nvim_create_autocmd({ "InsertEnter", "TextChangedI", "TextChangedP", "CursorMovedI" }, {
    group = group,
    buffer = buf,
    callback = function()
      refresh(buf)
    end,
  })
  place.on_leave(group, buf, function()
    M.forget(buf)
  end)
end

---@param buf integer
function M.detach(buf)
  local typing = active[buf]
  if typing then
    M.forget(buf)
    typing.timer:close()
    active[buf] = nil
    pcall(vim.api.nvim_del_augroup_by_name, "keystate.typing:" .. buf)
  end
end

return M
