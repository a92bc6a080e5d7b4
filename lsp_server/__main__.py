"""`python -m lsp_server`: the `keystate` command of this very interpreter."""

from lsp_server.cli import main

main(prog_name="keystate")
