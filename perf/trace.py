"""`keystate trace`: what can be done with recorded sessions."""

from __future__ import annotations

from pathlib import Path

import click

from engine.owner_file import write_owner_file
from perf.scrubbing import scrubbed, secret_words
from perf.trace_format import read_session, session_text
from perf.whole_file import check_place

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
    check_place(out)
    # The rhythm of somebody's typing is theirs too.
    write_owner_file(out, session_text(scrubbed(session)).encode())
    n_words = len(secret_words(session))
    click.echo(f"{out}: {len(session.events):,} events, {n_words:,} words replaced")
