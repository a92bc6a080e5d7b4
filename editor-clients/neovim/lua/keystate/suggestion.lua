---What the server proposed at a place, and what of it is left as the user types.
local M = {}

---One way to go on.
---@class keystate.Item
---@field text string all of it, from the anchor on, with "\n" between lines
---@field raw lsp.InlineCompletionItem as the server sent it

---@class keystate.Suggestion
---@field items keystate.Item[] one at least
---@field index integer which of them is shown
---@field told? integer[] which of them were told on since, in this order; nil: all
---@field row integer the anchor: where the text starts; 0-based
---@field col integer bytes
---@field stop integer the line after the last of those that typing along it has filled
---@field before string what stood before the anchor in its line
---@field tail string what stood after the cursor and is replaced
---@field after string what stood after the cursor in its line, the tail first
---@field invoked boolean whether the user asked for it
---@field accepted integer bytes of the text that were taken by part, from the anchor on

-- What editors put behind the cursor by themselves.
local CLOSERS = "^[%)%]}>\"'`]*$"

---Part of a suggestion the user has not typed yet.
---@param text string proposed from the anchor on
---@param typed string text between the anchor and the cursor
---@return string? rest nil when typing has diverged, or nothing is left
function M.remaining(text, typed)
  if #typed < #text and vim.startswith(text, typed) then
    return text:sub(#typed + 1)
  end
end

---The rest, where brackets were closed by themselves behind the cursor.
---@param rest string
---@param before string what stood after the cursor when the suggestion was made
---@param now string what stands there
---@return string? rest nil where what stands there is something else
function M.beside(rest, before, now)
  if now == before then
    return rest
  end
  local closers = now:sub(1, #now - #before)
  if not vim.endswith(now, before) or not closers:match(CLOSERS) then
    return nil
  end
  -- The suggestion closes them itself, at its end.
  if #closers < #rest and vim.endswith(rest, closers) then
    return rest:sub(1, #rest - #closers)
  end
end

---What is left of an item at the cursor.
---@param suggestion keystate.Suggestion
---@param item keystate.Item
---@param typed string
---@param after string text after the cursor in its line
---@return string?
function M.rest(suggestion, item, typed, after)
  local rest = M.remaining(item.text, typed)
  return rest and M.beside(rest, suggestion.after, after)
end

---The next part of a text.
---@param text string not empty
---@param part "all"|"word"|"line"
---@return string
function M.cut(text, part)
  if part == "word" then
    return text:match("^%s*[%w_\128-\255]+") or text:match("^%s*[^%w_%s\128-\255]+") or text
  end
  if part == "line" then
    return text:match("^\n*[^\n]+") or text
  end
  return text
end

---@param text string
---@return string text with "\n" between lines
function M.unix(text)
  return (text:gsub("\r\n?", "\n"))
end

---From the server's answer to suggestions; nil where there is nothing to show.
---@param raw lsp.InlineCompletionItem[]
---@param row integer the request's cursor
---@param col integer
---@param line string the cursor's line
---@param encoding "utf-8"|"utf-16"|"utf-32"
---@param invoked boolean
---@return keystate.Suggestion?
function M.from_answer(raw, row, col, line, encoding, invoked)
  local items = {} ---@type keystate.Item[]
  local start, stop = col, col
  for i, item in ipairs(raw) do
    local text = item.insertText
    local range = item.range
    local from, to = col, col
    if range then
      from = vim.str_byteindex(line, encoding, range.start.character, false)
      to = vim.str_byteindex(line, encoding, range["end"].character, false)
    end
    if i == 1 then
      start, stop = from, to
    end
    local fits = range == nil or (range.start.line == row and range["end"].line == row)
    fits = fits and from == start and to == stop and from <= col and col <= to
    if fits and type(text) == "string" and text ~= "" then
      table.insert(items, { text = M.unix(text), raw = item })
    end
  end
  if #items == 0 then
    return nil
  end
  return {
    items = items,
    index = 1,
    row = row,
    col = start,
    stop = row + 1,
    before = line:sub(1, start),
    tail = line:sub(col + 1, stop),
    after = line:sub(col + 1),
    invoked = invoked,
    accepted = 0,
  }
end

return M
