"""Subcommands of `keystate`, one file each."""
