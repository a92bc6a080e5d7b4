"""The `keystate` command. Each subcommand is a module of its own, imported when it is used."""

from __future__ import annotations

import os
from importlib import import_module

import click

from lsp_server.version import package_version

# By name, because commands that drive the server from outside live on a floor above this one.
COMMANDS = {
    "serve": "lsp_server.commands.serve",
    "complete": "lsp_server.commands.complete",
    "demo": "perf.demo",
    "profile": "perf.profile",
    "trace": "perf.trace",
    "eval": "perf.evaluate",
    "inspect": "lsp_server.commands.inspect",
    "quantize": "lsp_server.commands.quantize",
    "export": "lsp_server.commands.export",
    "doctor": "lsp_server.commands.doctor",
    "stats": "lsp_server.commands.stats",
}


class Problem(click.ClickException):
    """What the user can put right: one line on stderr, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Subcommands by the modules they are in; each module's `command` is it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a subcommand; what its input can cause ends in one line."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, ImportError) as error:
            # CheckpointError and TokenizerError among them, which name file and remedy.
            raise Problem(" ".join(str(error).split())) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_version(), message="keystate %(version)s")
def main() -> None:
    """Inline code completion whose latency does not depend on how long the file is."""
    # Threads that wait for one another by spinning starve as soon as another program keeps a core
    # busy: 319 ms a suggestion instead of 47 beside one such, on 2 cores. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
