-- The command alone; nothing runs, and nothing is mapped, before `require("keystate").setup()`.
if vim.g.loaded_keystate then
  return
end
vim.g.loaded_keystate = true

vim.api.nvim_create_user_command("Keystate", function(call)
  require("keystate.command").run(call.fargs)
end, {
  nargs = "+",
  desc = "keystate: inline code completion",
  complete = function(lead, line)
    return require("keystate.command").complete(lead, line)
  end,
})
