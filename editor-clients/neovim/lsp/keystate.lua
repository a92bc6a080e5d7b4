-- For `vim.lsp.enable("keystate")`. Works without `setup()` too, as a bare server to which
-- `vim.lsp.inline_completion` talks by itself.
return require("keystate.server").config()
