"""Documents, what a model would write at their cursors, and what is shown of it.

Each of `tests/golden/*.toml` has `language`, `why`, `before` (the document, its cursor at "‸"),
`model` (all that the model would go on to write), `expected` (the text to insert, "" for none),
`multiline` (whether several lines may be shown there), and `stop` where the model was cut short.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.stopping import StopRule
from lsp_server.context import lacks_block, multiline_at
from lsp_server.documents import Document
from lsp_server.showing import shown

FILES = sorted((Path(__file__).parent.parent / "golden").glob("*.toml"))
CURSOR = "‸"


def test_there_are_enough_in_enough_languages() -> None:
    languages = {tomllib.loads(file.read_text("utf-8"))["language"] for file in FILES}
    assert len(FILES) >= 30
    assert len(languages) >= 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(file: Path) -> None:
    # Not `read_text`, which would make one line end of all.
    golden = tomllib.loads(file.read_bytes().decode("utf-8"))
    above, below = golden["before"].split(CURSOR)
    document = Document(f"file:///{file.stem}", golden["language"], 0, above + below)
    assert multiline_at(document, len(above)) == golden["multiline"]
    model = golden["model"]
    rule = StopRule(
        multiline=golden["multiline"],
        line_before=above.replace("\r\n", "\n").rpartition("\n")[2],
        with_block=lacks_block(document, len(above)),
    )
    end = rule.end(model)
    text = rule.unfinished(model) if "stop" in golden else model[:end]
    answer = shown(document, len(above), text)
    assert answer.text == golden["expected"]
    # A reason where there was something to show, and none where it is shown.
    assert (answer.hidden is None) == (bool(answer.text) or not text.strip())
