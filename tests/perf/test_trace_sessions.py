"""Sessions of several documents in files, and what a trace does not say itself."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lsp_server.documents import Change, Document, Position
from perf import shipped_traces
from perf.trace_format import (
    Done,
    Event,
    Opened,
    Session,
    read_session,
    read_trace,
    write_session,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = sorted((Path(shipped_traces.__file__).parent / "samples").glob("*.jsonl"))


def event(
    kind: str, line: int, character: int, text: str, end: tuple[int, int], **more: object
) -> Event:
    start, last = Position(line, character), Position(*end)
    fields = {"t_ms": 1, "cursor": last, **more}
    return Event(kind=kind, changes=(Change(text=text, range=(start, start)),), **fields)  # type: ignore[arg-type]


TWO = Session(
    name="two",
    steps=(
        Opened(path="a.py", language_id="python", text="a"),
        Done(path="a.py", event=event("type", 0, 1, "x", (0, 2), next="y")),
        Opened(path="b.py", language_id="python", text="b", t_ms=7),
        Done(path="b.py", event=event("type", 0, 1, "y", (0, 2))),
        Done(path="a.py", event=event("type", 0, 2, "z", (0, 3))),
        Opened(path="b.py", language_id="python", text="other"),
    ),
)


def test_several_documents_come_back_from_their_file(tmp_path: Path) -> None:
    write_session(TWO, tmp_path / "two.jsonl")
    assert read_session(tmp_path / "two.jsonl") == TWO
    lines = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert [line.get("path") for line in lines] == ["a.py", None, "b.py", None, "a.py", "b.py"]
    with pytest.raises(ValueError, match="opens 3 documents, expected one"):
        read_trace(tmp_path / "two.jsonl")


def test_a_session_is_a_trace_for_each_opening() -> None:
    first, second, third = TWO.traces
    assert [len(trace.events) for trace in (first, second, third)] == [2, 1, 0]
    assert Session.of("two", first, second).steps[0] == TWO.steps[0]


def test_an_event_in_what_is_not_open_is_refused(tmp_path: Path) -> None:
    write_session(TWO, tmp_path / "two.jsonl")
    lines = (tmp_path / "two.jsonl").read_text().splitlines()
    (tmp_path / "two.jsonl").write_text("\n".join([lines[0], lines[4].replace("a.py", "c.py")]))
    with pytest.raises(ValueError, match=r":2: .*'c.py' is not open"):
        read_session(tmp_path / "two.jsonl")


def without_next(session: Session, path: Path) -> Session:
    """A session as it is read where its file does not say what comes next."""
    write_session(session, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("next", None)
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_session(path)


def test_what_comes_next_is_found_out(tmp_path: Path) -> None:
    here = Opened(path="a.py", language_id="python", text="")
    there = Opened(path="b.py", language_id="python", text="")
    steps: list[Opened | Done] = [
        here,
        there,
        Done(path="a.py", event=event("type", 0, 0, "a", (0, 1))),
        Done(path="a.py", event=event("type", 0, 1, "()", (0, 2))),
        Done(path="b.py", event=event("type", 0, 0, "x", (0, 1))),
        Done(path="a.py", event=event("paste", 0, 2, "🎉\n  c", (1, 3))),
        Done(path="a.py", event=event("type", 1, 0, "elsewhere", (1, 9))),
    ]
    found = without_next(Session(name="a", steps=tuple(steps)), tmp_path / "a.jsonl")
    assert [one.next for one in found.events] == ["(🎉\n  c", "🎉\n  c", "", "", ""]


def test_what_makers_say_comes_next_is_found_out(tmp_path: Path) -> None:
    session = read_session(next(path for path in SAMPLES if path.stem == "brackets"))
    found = without_next(session, tmp_path / "brackets.jsonl")
    pairs = list(zip(session.events, found.events, strict=True))
    # What is typed and taken back at once is not told apart, nor what comes behind the trace.
    right = [bool(got.next) and made.next.startswith(got.next) for made, got in pairs]
    assert sum(right) > 0.7 * len(pairs)


def states(session: Session) -> Iterator[str]:
    """The text after each event; fails where a cursor or a range is not in it."""
    documents: dict[str, Document] = {}
    for step in session.steps:
        if isinstance(step, Opened):
            documents[step.path] = Document("", step.language_id, 0, step.text)
            continue
        document = documents[step.path]
        for change in step.event.changes:
            assert change.range is not None
            for position in change.range:
                assert document.position_at(document.offset_at(position)) == position
            document.apply(change)
        cursor = step.event.cursor
        assert document.position_at(document.offset_at(cursor)) == cursor
        yield document.text


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_shipped_traces_can_be_replayed(path: Path) -> None:
    session = read_session(path)
    assert len(list(states(session))) == len(session.events) >= 100
    times_ms = [one.t_ms for one in session.events]
    assert times_ms == sorted(times_ms)


def test_shipped_traces_are_what_their_names_say() -> None:
    sessions = {path.stem: read_session(path) for path in SAMPLES}
    kinds = {name: [one.kind for one in session.events] for name, session in sessions.items()}
    assert set(sessions) == {one.name for one in shipped_traces.SHIPPED}
    assert len(sessions["long_file"].traces[0].text) > 200_000
    assert kinds["deleting"].count("delete") > 50
    assert kinds["jumps"].count("jump") > 20
    assert kinds["paste"].count("paste") == 5
    changes = [change.text for one in sessions["brackets"].events for change in one.changes]
    assert sum(text in ("()", "[]", "{}", '""', "''") for text in changes) > 10
    assert len({trace.path for trace in sessions["two_files"].traces}) == 2
    switches = [step.path for step in sessions["two_files"].steps]
    assert sum(a != b for a, b in pairwise(switches)) > 4
    assert sum(path.stat().st_size for path in SAMPLES) < 1_000_000


def test_shipped_traces_are_made_again(tmp_path: Path) -> None:
    one = next(one for one in shipped_traces.SHIPPED if one.name == "two_files")
    if not (shipped_traces.ROOT / ".git").exists():
        pytest.skip("no history here to make them of")
    write_session(shipped_traces.shipped_session(one), tmp_path / "two_files.jsonl")
    shipped = next(path for path in SAMPLES if path.stem == "two_files")
    assert (tmp_path / "two_files.jsonl").read_bytes() == shipped.read_bytes()
