"""Scrubbed sessions hold no code, and are edited as the recorded ones were."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lsp_server.cli import main
from lsp_server.documents import Change, Document, Position
from perf import scrubbing
from perf.scrubbing import scrubbed, secret_words, words_of_all_states
from perf.trace_format import Done, Event, Opened, Session, read_session

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = sorted((Path(scrubbing.__file__).parent / "samples").glob("*.jsonl"))
SHAPE = re.compile(r"[^\W_]")
TEXT = '''import cart
class Cart:
    """Süße 🍰 for 30 guests."""
    def total_of(self, imp):
        return sum(item.price for item in self.items) + 0x1F - 1e5 - 100
'''


def texts(session: Session) -> Iterator[str]:
    """The text after each step; fails where an edit is out of it."""
    documents: dict[str, Document] = {}
    for step in session.steps:
        if isinstance(step, Opened):
            documents[step.path] = Document("", step.language_id, 0, step.text)
        else:
            document = documents[step.path]
            for change in step.event.changes:
                assert change.range is not None
                ends = [document.position_at(document.offset_at(at)) for at in change.range]
                assert tuple(ends) == change.range
                document.apply(change)
            cursor = step.event.cursor
            assert document.position_at(document.offset_at(cursor)) == cursor
        yield documents[step.path].text


def opened(text: str, language_id: str = "python") -> Session:
    return Session(
        name="a", steps=(Opened(path="src/cart.py", language_id=language_id, text=text),)
    )


def image(text: str) -> str:
    return next(texts(scrubbed(opened(text), "secret")))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem == "long_file"))
        for path in SAMPLES
    ],
)
def test_shapes_stay_and_names_go(path: Path) -> None:
    session = read_session(path)
    done = scrubbed(session, "secret")
    for before, after in zip(texts(session), texts(done), strict=True):
        assert SHAPE.sub("x", before) == SHAPE.sub("x", after)
    for one, other in zip(session.events, done.events, strict=True):
        assert (one.t_ms, one.kind, one.cursor) == (other.t_ms, other.kind, other.cursor)
        assert SHAPE.sub("x", one.next) == SHAPE.sub("x", other.next)
    names = secret_words(session)
    assert len(names) > 100
    assert names.isdisjoint(words_of_all_states(done))


def test_what_stays_and_what_goes() -> None:
    after = image(TEXT)
    for keyword in ("class", "def", "return", "for", "in"):
        assert re.findall(rf"\b{keyword}\b", TEXT) == re.findall(rf"\b{keyword}\b", after)
    for name in ("Cart", "total_of", "self", "imp", "sum", "item", "price", "Süße", "guests"):
        assert name not in re.findall(r"\w+", after)
    # A name begins as it does, so that the keyword had to go.
    assert "import" not in after
    assert "30" not in after
    assert "100" not in after
    assert re.search(r"0x\d[A-F] - \de\d - \d00\n", after)
    assert len(after.encode("utf-16-le")) == len(TEXT.encode("utf-16-le"))


def test_equal_words_stay_equal_and_different_ones_different() -> None:
    words = re.findall(r"\w+", TEXT)
    images = dict(zip(words, re.findall(r"\w+", image(TEXT)), strict=True))
    assert len(set(images.values())) == len(set(words))
    assert re.findall(r"\w+", image(TEXT)) == [images[word] for word in words]


def test_a_letter_is_not_always_the_same_other_letter() -> None:
    (repeated,) = image("eeeeeeeeeeee").split()
    assert len(set(repeated)) > 2


def test_a_half_typed_word_is_the_beginning_of_the_whole() -> None:
    steps: list[Opened | Done] = [Opened(path="a.py", language_id="python", text="deflate\n")]
    for n, key in enumerate("deflate"):
        at, then = Position(1, n), Position(1, n + 1)
        change = Change(text=key, range=(at, at))
        rest = "deflate"[n + 1 :]
        event = Event(t_ms=n, kind="type", changes=(change,), cursor=then, next=rest)
        steps.append(Done(path="a.py", event=event))
    done = scrubbed(Session(name="a", steps=tuple(steps)), "secret")
    first, *after = (text.splitlines() for text in texts(done))
    (whole,) = first
    # The way to a keyword is the keyword's.
    assert whole.startswith("def")
    assert whole != "deflate"
    assert [lines[1] for lines in after] == [whole[: n + 1] for n in range(7)]
    assert [event.next for event in done.events] == [whole[n + 1 :] for n in range(7)]


def test_secrets_make_the_difference() -> None:
    assert scrubbed(opened(TEXT), "a") == scrubbed(opened(TEXT), "a")
    assert scrubbed(opened(TEXT), "a") != scrubbed(opened(TEXT), "b")
    assert scrubbed(opened(TEXT)) != scrubbed(opened(TEXT))


def test_the_command_writes_what_can_be_replayed(tmp_path: Path) -> None:
    path = next(path for path in SAMPLES if path.stem == "brackets")
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(main, ["trace", "scrub", str(path), str(out)])
    assert result.exit_code == 0, result.output
    assert out.stat().st_mode & 0o777 == 0o600
    done = read_session(out)
    assert len(list(texts(done))) == len(done.steps)
    # The file's name goes, its suffix stays.
    assert done.steps[0].path.endswith(".py")
    assert "stopping" not in out.read_text()
