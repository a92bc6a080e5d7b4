"""`keystate complete`: one completion, by the code that the server runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lsp_server.commands.loading import loading_bar
from lsp_server.commands.options import (
    device_option,
    json_option,
    model_option,
    quantize_option,
)
from lsp_server.documents import Document, Position
from lsp_server.settings import Settings
from lsp_server.syntax import language_id_of

if TYPE_CHECKING:
    from lsp_server.suggestions import Suggester, Suggestion


@click.command("complete")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--line", type=click.IntRange(min=0), required=True, help="0-based.")
@click.option(
    "--character", type=click.IntRange(min=0), required=True, help="0-based, in UTF-16 units."
)
@json_option
@click.option(
    "--raw", is_flag=True, help="The model's own greedy continuation: no trimming, no stop rule."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=Settings.max_tokens, show_default=True
)
@model_option
@device_option
@quantize_option
def command(
    path: Path,
    line: int,
    character: int,
    as_json: bool,
    raw: bool,
    max_tokens: int,
    model: str | None,
    device: str | None,
    quantize: str | None,
) -> None:
    """Complete the code at a position of a file."""
    document = read_document(path)
    position = checked_position(document, line, character)
    settings = Settings(
        model=model,
        device=device or Settings.device,
        quantize=quantize,
        max_tokens=max_tokens,
        save_states=False,
    )
    # Imports torch; after what can be told without it.
    from lsp_server.suggestions import Suggester

    with loading_bar() as show:
        suggester = Suggester.load(settings, show)
    try:
        suggestion = asyncio.run(
            suggester.suggest(document, position, explicit=True, deadline_ms=None, raw=raw)
        )
    finally:
        suggester.close()
    if suggestion.completion.stop == "error":
        raise ValueError("the completion failed; the log above says why")
    if as_json:
        click.echo(json.dumps(completion_json(suggester, suggestion)))
        return
    for item in suggestion.items:
        click.echo(item.insert_text)
    if not suggestion.items:
        click.echo("nothing to suggest", err=True)


def read_document(path: Path) -> Document:
    """A file as an editor would open it; bytes that are not UTF-8 become U+FFFD, with a warning."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8", errors="replace")
        n_replaced = text.count("\ufffd") - data.count("\ufffd".encode())
        click.echo(
            f"{path}: not UTF-8 (first at byte {error.start}); {n_replaced} replaced by U+FFFD",
            err=True,
        )
    return Document(
        path.absolute().as_uri(), language_id_of(path.name), 0, text, path_in_prompts(path)
    )


def path_in_prompts(path: Path) -> str:
    """The path below the working directory, else the name alone: where it lies is nobody's."""
    absolute, here = path.absolute(), Path.cwd()
    if absolute.is_relative_to(here):
        return absolute.relative_to(here).as_posix()
    return path.name


def checked_position(document: Document, line: int, character: int) -> Position:
    """The position, if the text has it; ValueError else, where a server would move it."""
    n_lines = len(document.lines)
    if line >= n_lines:
        raise ValueError(f"line {line} is past the end: the last line is {n_lines - 1}")
    # An offset past a line's content is moved to its end.
    n_units = document.position_at(document.offset_at(Position(line, 2**31))).character
    if character > n_units:
        raise ValueError(f"character {character} is past the end of line {line}: it has {n_units}")
    return Position(line, character)


def completion_json(suggester: Suggester, suggestion: Suggestion) -> dict[str, Any]:
    return {
        "items": [
            {
                "insertText": item.insert_text,
                "range": {"start": item.start._asdict(), "end": item.end._asdict()},
            }
            for item in suggestion.items
        ],
        "model": suggester.name,
        "device": suggester.device,
        "timings_ms": suggestion.timings_ms,
        **suggestion.counts,
        "counters": suggester.engine.counters(),
    }
