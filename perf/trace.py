"""`keystate trace`: what can be done with recorded sessions."""

from __future__ import annotations

import os
from pathlib import Path

import click

from perf.scrubbing import scrubbed, secret_words
from perf.trace_format import read_session, write_session

IN = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(dir_okay=False, path_type=Path)


@click.group("trace")
def command() -> None:
    """Work on sessions that `keystate serve --record` has written."""


@command.command("scrub")
@click.argument("recorded", metavar="IN", type=IN)
@click.argument("out", metavar="OUT", type=OUT)
def scrub(recorded: Path, out: Path) -> None:
    """Take the code out of a session and leave its shape.

    Names, literals, comments and the file's name give way to other letters, the same everywhere;
    what stays is keywords, punctuation, lengths, and who typed what when. Look at OUT before
    you give it away.
    """
    session = read_session(recorded)
    done = scrubbed(session)
    # The rhythm of somebody's typing is theirs too.
    os.close(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    write_session(done, out)
    n_words = len(secret_words(session))
    click.echo(f"{out}: {len(session.events):,} events, {n_words:,} words replaced")
