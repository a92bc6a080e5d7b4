-- The whole configuration of `open-sample.sh`.
vim.opt.runtimepath:prepend(vim.env.KEYSTATE_PLUGIN)
vim.o.laststatus = 2
vim.o.swapfile = false
vim.o.statusline = " %f %m %=<Tab> accepts, <M-Right> a word   %{v:lua.require'keystate'.status()}  %l:%c "
require("keystate").setup({ cmd = { vim.env.KEYSTATE_SERVER, "serve" } })
