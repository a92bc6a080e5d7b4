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


@pytest.mark.parametrize(
    "word",
    [
        *("7Tropical_Hunter", "3f2ac9d1deadbeef", "2BeforeLaunch", "1stNationalBank", "10px"),
        # Where all but the last letter is as in a number.
        *("0f0", "0e_x", "0xFaceG", "0b1z", "5usize", "00LL"),
    ],
)
def test_words_that_begin_with_a_digit_go(word: str) -> None:
    session = opened(f'key = "{word}"\n')
    assert word in secret_words(session)
    after = image(f'key = "{word}"\n').split('"')[1]
    assert SHAPE.sub("x", word) == SHAPE.sub("x", after)
    is_number = scrubbing._NUMBER.fullmatch
    for n, (one, other) in enumerate(zip(word, after, strict=True)):
        if one != "_":
            assert one != other or is_number(word[: n + 1]), after


@pytest.mark.parametrize(
    ("number", "pattern"),
    [
        *(("0xDEAD_be1f", "0x[A-F]{4}_[a-f]{2}[1-9][a-f]"), ("0XFFu", "0X[A-F]{2}u")),
        *(("0b101", "0b[1-9]0[1-9]"), ("0o17", r"0o\d\d"), ("1_000e5", r"\d_000e\d")),
        *(("250L", r"\d\d0L"), ("10n", r"\d0n"), ("75j", r"\d\dj"), ("00f_", "00f_")),
    ],
)
def test_numbers_stay_numbers(number: str, pattern: str) -> None:
    session = opened(f"= {number}\n")
    assert number not in secret_words(session)
    after = image(f"= {number}\n").split()[1]
    assert re.fullmatch(pattern, after), after
    digits = zip(number[2:], after[2:], strict=True)
    assert all(one != other for one, other in digits if one in "123456789ABCDEFabcd")


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("src/4acme_payroll.py", ".py"),
        ("src/cart.TS", ".TS"),
        ("notes.AcmeCorp", ""),
        ("src.py/notes", ""),
    ],
)
def test_of_a_path_a_languages_suffix_alone_stays(path: str, kept: str) -> None:
    session = Session(name="a", steps=(Opened(path=path, language_id="python", text=""),))
    after = scrubbed(session, "secret").steps[0].path
    assert after.endswith(kept)
    names = re.findall(r"\w{4,}", path.removesuffix(kept))
    assert secret_words(session).issuperset(names)
    assert not any(name in after for name in names)


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
