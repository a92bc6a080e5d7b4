"""Traces end where they should, and what happens on the way is what editors and people do."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.documents import Change, Document, Position
from perf import traces
from perf.auto_editing import indentation_unit
from perf.hunks import Hunk, hunks_between
from perf.keyboard import BETWEEN_KEYS_MS, Keyboard, log_normal
from perf.trace_format import KINDS, Event, Trace, read_trace, write_trace
from perf.typed_run import CAREFUL, NEXT_MAX_CHARS, Habits
from perf.typing_model import type_changes
from perf.unwriting import unwritten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESTLESS = Habits(
    slip=0.2, undo=0.2, look_away=0.1, accept=0.2, paste=0.9, select=0.5, interrupt=0.8
)
SHOP = '''class Cart:
    """Süße Sachen 🍰."""

    def __init__(self, items):
        self.items = items

    def total(self, prices):
        amount = 0
        for item in self.items:
            if item in prices:
                amount += prices[item]

        return amount


def main():
    cart = Cart(["cake", 'tea'])
    print(cart.total({"cake": 3, "tea": 2}))
'''
# What source code is made of, and what editors treat in a way of their own.
PIECES = ("(", ")", "[", "]", "{", "}", '"', "'", "`", "\n", "\n", " ", "    ", "\t", ":", ",", ".")
WORDS = ("if", "name", "x", "Straße", "🍰", "e\u0301", "\u2028", "\x0c", "42")
texts = st.lists(st.sampled_from(PIECES + WORDS), max_size=60).map("".join)


def applied(trace: Trace) -> Iterator[tuple[Event, str, int]]:
    """Each event with the text and the cursor's offset after it, by the protocol's own rules."""
    units = trace.text.encode("utf-16-le")

    def offset(position: Position) -> int:
        lines = units.decode("utf-16-le").split("\n")
        above = sum(len((line + "\n").encode("utf-16-le")) for line in lines[: position.line])
        assert 2 * position.character <= len(lines[position.line].encode("utf-16-le"))
        return above + 2 * position.character

    for event in trace.events:
        for change in event.changes:
            assert change.range is not None
            start, end = map(offset, change.range)
            units = units[:start] + change.text.encode("utf-16-le") + units[end:]
        before = units[: offset(event.cursor)].decode("utf-16-le")
        yield event, units.decode("utf-16-le"), len(before)


def typed(
    old: str,
    new: str,
    *,
    habits: Habits = CAREFUL,
    path: str = "a.js",
    language_id: str = "javascript",
    seed: int = 0,
    in_order: bool = True,
    max_events: int | None = None,
) -> Trace:
    return type_changes(
        old,
        new,
        random.Random(seed),
        path=path,
        language_id=language_id,
        habits=habits,
        in_order=in_order,
        max_events=max_events,
    )


def check(before: str, text: str, after: str, *expected: str, language_id: str = "c") -> None:
    """Type `text` between two others; `|` in what is expected after each event is the cursor."""
    trace = typed(before + after, before + text + after, language_id=language_id)
    seen = [text[:cursor] + "|" + text[cursor:] for _, text, cursor in applied(trace)]
    assert seen == [before + "|" + after, *expected]


@settings(deadline=None, max_examples=150)
@given(
    old=texts,
    new=texts,
    seed=st.integers(0, 1000),
    habits=st.sampled_from([CAREFUL, RESTLESS]),
    language_id=st.sampled_from(["python", "c"]),
    in_order=st.booleans(),
)
def test_a_trace_ends_in_the_new_text(
    old: str, new: str, seed: int, habits: Habits, language_id: str, in_order: bool
) -> None:
    trace = typed(old, new, seed=seed, habits=habits, language_id=language_id, in_order=in_order)
    *_, (_, text, _) = [(None, old, 0), *applied(trace)]
    assert text == new
    times = [event.t_ms for event in trace.events]
    assert all(a < b for a, b in zip([0, *times], times, strict=False))
    assert all(bool(event.changes) == (event.kind != "jump") for event in trace.events)
    # The server's document takes the same way.
    document = trace.open()
    for event in trace.events:
        for change in event.changes:
            document.apply(change)
        assert document.position_at(document.offset_at(event.cursor)) == event.cursor
    assert document.text == new


@pytest.mark.parametrize("habits", [CAREFUL, RESTLESS], ids=["careful", "restless"])
def test_next_is_what_is_typed_from_there(habits: Habits) -> None:
    at = SHOP.index("\n\ndef main")
    added = """
    def add(self, item, *, often={"a": [1]}):
        if item not in self.items:

            for _ in range(often[item]):
                self.items.append((item, "once" + f"{item}"))

    def clear(self):
        self.items = []
"""
    new = SHOP[:at] + added + SHOP[at:]
    end = at + len(added)
    for seed in range(5):
        for event, text, cursor in applied(typed(SHOP, new, habits=habits, seed=seed)):
            before = text[:cursor]
            # Indentation that the editor put on a line that is left blank goes with Enter.
            if event.next.startswith("\n"):
                before = before.rstrip(" ")
            # One jump of two goes away to read.
            is_away = event.kind == "jump" and not event.next
            if len(before) < end and new.startswith(before) and not is_away:
                assert event.next == new[len(before) : end]
            else:
                assert event.next == ""


def test_changes_close_to_each_other_are_one() -> None:
    assert hunks_between("f(a, b)\n", "f(c, d)\n") == [Hunk(start=2, end=6, text="c, d")]
    assert hunks_between("f(a, of_all, b)\n", "f(c, of_all, d)\n") == [
        Hunk(start=2, end=3, text="c"),
        Hunk(start=13, end=14, text="d"),
    ]


def test_whole_lines_are_inserted_from_the_end_of_the_line_above() -> None:
    assert hunks_between("a\nb\n", "a\nc\nb\n") == [Hunk(start=1, end=1, text="\nc")]
    assert hunks_between("b\n", "c\nb\n") == [Hunk(start=0, end=0, text="c\n")]


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        (["a", "    b", "        c", "        c"], "    "),
        (["a", "  b", "    c", "    d"], "  "),
        (["a", *["    b"] * 20, "  odd"], "    "),
        (["a", "\tb", "\tb", "  odd"], "\t"),
        (["a"], "    "),
    ],
    ids=["four", "two", "four with an odd one", "tab", "none"],
)
def test_a_text_shows_its_level_of_indentation(lines: list[str], unit: str) -> None:
    assert indentation_unit("\n".join(lines)) == unit


@pytest.mark.parametrize("key", ["(", "[", "{", '"', "'", "`"])
def test_openers_bring_their_closers_which_are_overtyped(key: str) -> None:
    closer = {"(": ")", "[": "]", "{": "}"}.get(key, key)
    check(
        "x = ",
        f"{key}a{closer}",
        "\n",
        f"x = {key}|{closer}\n",
        f"x = {key}a|{closer}\n",
        f"x = {key}a{closer}|\n",
    )


def test_nothing_is_closed_before_a_word_nor_after_one() -> None:
    check("", "(", "word", "(|word")
    check("don", "'t", " go", "don'| go", "don't| go")


def test_nothing_is_closed_within_a_string() -> None:
    check("", '"(', "", '"|"', '"(|"', '"(|')


def test_closers_that_the_text_does_not_have_are_deleted() -> None:
    check("f", "(", "\na)", "f(|)\na)", "f(|\na)")


def test_enter_between_braces_gives_the_closer_a_line_of_its_own() -> None:
    check(
        "  if (x) ",
        "{\n    y\n  }",
        "\n",
        "  if (x) {|}\n",
        "  if (x) {\n    |\n  }\n",
        "  if (x) {\n    y|\n  }\n",
        "  if (x) {\n    y\n  }|\n",
    )


def test_enter_keeps_the_indentation_and_backspace_leaves_it() -> None:
    check(
        "    x:",
        "\n        y\nz",
        "\n",
        "    x:\n        |\n",
        "    x:\n        y|\n",
        "    x:\n        y\n        |\n",
        "    x:\n        y\n    |\n",
        "    x:\n        y\n|\n",
        "    x:\n        y\nz|\n",
        language_id="python",
    )


def test_indentation_of_blank_lines_goes_and_more_of_it_comes_by_the_level() -> None:
    check(
        "    x",
        "\n\n        y",
        "\n",
        "    x\n    |\n",
        "    x\n\n    |\n",
        "    x\n\n        |\n",
        "    x\n\n        y|\n",
    )


def test_a_careful_person_only_types_what_is_missing() -> None:
    new = SHOP.replace("return amount\n", "return amount * (1 + tax)\n")
    trace = typed(SHOP, new, path="shop.py", language_id="python")
    assert [event.kind for event in trace.events] == ["jump"] + ["type"] * len(" * (1 + tax)")
    changes = [change.text for event in trace.events for change in event.changes]
    assert changes == [*" * ", "()", *"1 + tax)"]
    assert trace.events[0].next == " * (1 + tax)"
    assert [event.next for event in trace.events[1:]] == [
        " * (1 + tax)"[n + 1 :] for n in range(len(" * (1 + tax)"))
    ]


@pytest.mark.parametrize(
    ("old", "new", "deletes"),
    [
        ("x = abcd\n", "x = \n", {("d", "c", "b", "a"), ("abcd",)}),
        ("a\nb b\nc c\nd\n", "a\nd\n", {("b b\n", "c c\n"), ("b b\nc c\n",)}),
        ("say(one_word, another)\n", "say()\n", {("another", ", ", "one_word")}),
    ],
    ids=["characters", "lines", "words"],
)
def test_deletions_go_by_characters_words_lines_or_selections(
    old: str, new: str, deletes: set[tuple[str, ...]]
) -> None:
    seen = set()
    for seed in range(30):
        text, gone = old, []
        for event, now, cursor in applied(typed(old, new, seed=seed)):
            if event.kind == "delete":
                gone.append(text[cursor : cursor + len(text) - len(now)])
            text = now
        seen.add(tuple(gone))
    assert deletes <= seen


def test_restless_people_do_all_that_there_is_to_do() -> None:
    counts: Counter[str] = Counter()
    for seed in range(5):
        for event, _, _ in applied(typed("", SHOP * 2, habits=RESTLESS, seed=seed)):
            counts[event.kind] += 1
    assert all(counts[kind] >= 5 for kind in KINDS), counts


def test_a_change_above_may_come_in_the_middle_of_a_run() -> None:
    old = "one();\n\n\n\ntwo();\n"
    new = "one();\nfirst();\n\n\n\ntwo();\n\nthird();\nfourth();\n"
    written = []
    for seed in range(20):
        trace = typed(old, new, habits=replace(CAREFUL, interrupt=1.0), seed=seed, in_order=False)
        *_, (_, text, _) = applied(trace)
        assert text == new
        # Where the cursor was taken to, and what then came.
        jumps = [event.next.strip() for event in trace.events if event.kind == "jump"]
        written.append(tuple(jumps))
    assert set(written) == {
        ("first();", "third();\nfourth();"),
        ("third();", "first();", "fourth();"),
    }


def test_slips_are_typed_and_taken_back() -> None:
    habits = replace(CAREFUL, slip=1.0)
    trace = typed("", "ab", habits=habits)
    kinds = [event.kind for event in trace.events]
    assert kinds.count("type") == kinds.count("delete") + 2
    assert kinds.count("delete") >= 2
    # No suggestion would be right behind a wrong letter.
    wrong = [event for event, text, cursor in applied(trace) if not "ab".startswith(text)]
    assert wrong
    assert not any(event.next for event in wrong)
    assert trace.events[-1].next == ""


def test_an_undo_takes_back_words_that_are_typed_again() -> None:
    habits = replace(CAREFUL, undo=0.1)
    text = "total(prices[first], prices[second], rebate)\n"
    n_undone = 0
    for seed in range(10):
        before = ""
        for event, now, cursor in applied(typed("", text, habits=habits, seed=seed)):
            if event.kind == "undo":
                n_undone += 1
                assert len(now) < len(before)
                assert text.startswith(now[:cursor])
                assert event.next == text[cursor:]
            before = now
    assert n_undone >= 5


def test_keys_come_at_the_published_speed() -> None:
    dice = random.Random(3)
    means = []
    for _ in range(400):
        keyboard = Keyboard(Document("file:///a", "c", 0, ""), dice)
        times = [keyboard.jump(0, pause_ms=None).t_ms for _ in range(30)]
        means.append((times[-1] - times[0]) / 29)
    mean_ms, sd_ms = BETWEEN_KEYS_MS
    assert statistics.fmean(means) == pytest.approx(mean_ms, rel=0.07)
    assert statistics.stdev(means) == pytest.approx(sd_ms, rel=0.2)


def test_a_log_normal_has_the_mean_and_deviation_asked_for() -> None:
    dice = random.Random(5)
    values = [log_normal(dice, 100.0, 50.0) for _ in range(20_000)]
    assert statistics.fmean(values) == pytest.approx(100.0, rel=0.03)
    assert statistics.stdev(values) == pytest.approx(50.0, rel=0.05)


def test_about_every_sixteenth_keystroke_corrects_an_error() -> None:
    old, new = "", SHOP * 20
    habits = replace(CAREFUL, slip=Habits().slip)
    kinds = Counter(event.kind for event in typed(old, new, habits=habits).events)
    careful = Counter(event.kind for event in typed(old, new).events)
    corrections = kinds["delete"] - careful["delete"]
    assert corrections / sum(kinds.values()) == pytest.approx(0.0631, abs=0.012)


def test_traces_come_back_from_their_files(tmp_path: Path) -> None:
    trace = typed("", SHOP.replace("cake", "\u2028🍰"), habits=RESTLESS)
    write_trace(trace, tmp_path / "a.jsonl")
    assert read_trace(tmp_path / "a.jsonl") == trace
    whole = Event(t_ms=1, kind="paste", changes=(Change(text="all"),), cursor=Position(0, 3))
    trace = replace(trace, events=(whole,))
    write_trace(trace, tmp_path / "a.jsonl")
    assert read_trace(tmp_path / "a.jsonl") == trace


def test_the_format_is_the_documented_one(tmp_path: Path) -> None:
    write_trace(typed("", "🍰(", max_events=3), tmp_path / "a.jsonl")
    first, *events = map(json.loads, (tmp_path / "a.jsonl").read_text("utf-8").splitlines())
    assert first == {"path": "a.js", "languageId": "javascript", "text": ""}
    assert [type(event.pop("t_ms")) for event in events] == [int] * 3
    at = {"line": 0, "character": 2}
    assert events[2] == {
        "kind": "type",
        "changes": [{"range": {"start": at, "end": at}, "text": "()"}],
        "cursor": {"line": 0, "character": 3},
        "request": True,
        "next": "",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"path": "a"}', ":1: not a trace's line"),
        ('{"path": "a", "languageId": "c", "text": ""}\n\n{"t_ms": 1}', ":3: not a trace's line"),
        ('{"path": "a", "languageId": "c", "text": ""}\n{"kind": "sing"}', "kind is 'sing'"),
        ("no json", ":1: not a trace's line"),
        ("[" * 100_000, ":1: .* nested too deep"),
        ("\x80\xff", ":1: .* byte 1 is 0x80, expected JSON in UTF-8"),
        ('{"path": "a\\u0000", "languageId": "c", "text": ""}', "expected one without NUL"),
        ('{"path": "a", "languageId": "c", "text": 5}', "text is 5, expected text"),
        ('{"path": "a", "languageId": "c", "text": "\\ud800"}', "text holds .* half a character"),
        ('{"path": "a", "languageId": ["c"], "text": ""}', "languageId is a list, expected text"),
    ],
)
def test_what_is_not_a_trace_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        read_trace(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ([], "it is a list, expected an object"),
        ("abc", "it is 'abc', expected an object"),
        (5, "it is 5, expected an object"),
        ({"path": ["a"]}, "path is a list, expected text"),
        ({"t_ms": "soon"}, "t_ms is 'soon', expected a whole number"),
        ({"t_ms": 10**400}, "t_ms is 10{59}…, expected a whole number"),
        ({"kind": []}, "kind is a list, expected text"),
        ({"changes": 5}, "changes is 5, expected a list"),
        ({"changes": ["x"]}, "a change is 'x', expected an object"),
        ({"changes": [{"text": 5}]}, "text is 5, expected text"),
        ({"changes": [{"text": "", "range": {}}]}, "start is missing, expected an object"),
        ({"cursor": [0, 0]}, "cursor is a list, expected an object"),
        ({"cursor": {"line": "0", "character": 0}}, "line is '0', expected a whole number"),
        ({"cursor": {"line": 0, "character": None}}, "character is null, expected a whole number"),
        ({"request": 1}, "request is 1, expected true or false"),
        ({"next": 5}, "next is 5, expected text"),
    ],
)
def test_what_is_not_an_event_is_refused(tmp_path: Path, line: object, found: str) -> None:
    opened = {"path": "a", "languageId": "c", "text": ""}
    event = {
        **{"t_ms": 1, "kind": "jump", "changes": []},
        **{"cursor": {"line": 0, "character": 0}, "request": True},
    }
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, (opened, event))))
    assert len(read_trace(path).events) == 1
    damaged = event | line if isinstance(line, dict) else line
    path.write_text("\n".join(map(json.dumps, (opened, damaged))))
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: not a trace's line: {found}$"):
        read_trace(path)


def test_carriage_returns_are_refused() -> None:
    with pytest.raises(ValueError, match="carriage returns"):
        typed("a\r\n", "a\n")


def test_next_is_no_longer_than_it_need_be() -> None:
    trace = typed("", "x" * 3 * NEXT_MAX_CHARS, max_events=2)
    assert len(trace.events[1].next) == NEXT_MAX_CHARS


def test_equal_seeds_make_equal_traces() -> None:
    a, b, c = (typed("", SHOP, habits=Habits(), seed=seed) for seed in (1, 1, 2))
    assert a == b
    assert a != c


def test_unwriting_takes_something_out_of_the_text() -> None:
    lines = set(SHOP.split("\n"))
    n_lost = 0
    for seed in range(40):
        text = unwritten(SHOP, random.Random(seed))
        n_lost += len(lines - set(text.split("\n")))
        *_, (_, end, _) = applied(typed(text, SHOP, in_order=False, seed=seed))
        assert end == SHOP
    assert n_lost > 80
    with pytest.raises(ValueError, match="2 lines with text, expected 10"):
        unwritten("a\nb\n", random.Random(0))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a file of source code, and of others that nobody types."""
    directory = tmp_path_factory.mktemp("repository")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True)

    def commit(shop: str) -> None:
        (directory / "src").mkdir(exist_ok=True)
        (directory / "src" / "Süß shop.py").write_bytes(shop.encode())
        (directory / "notes.txt").write_text(shop)
        (directory / "dos.py").write_bytes(shop.replace("\n", "\r\n").encode())
        (directory / "latin.py").write_bytes(shop.encode("utf-16"))
        git("add", ".")
        git("commit", "-qm", "A commit")

    git("init", "-q")
    commit(SHOP)
    commit(SHOP.replace("amount", "sum"))
    commit(SHOP.replace("amount", "sum").replace("main()", "run(*arguments)"))
    return directory


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(traces.main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_history_becomes_traces(repository: Path, tmp_path: Path) -> None:
    assert run(repository, tmp_path / "a").startswith("2 traces")
    made = [read_trace(path) for path in sorted((tmp_path / "a").iterdir())]
    assert [trace.path for trace in made] == ["src/Süß shop.py"] * 2
    middle = SHOP.replace("amount", "sum")
    ends = {trace.text: list(applied(trace))[-1][1] for trace in made}
    assert ends == {SHOP: middle, middle: middle.replace("main()", "run(*arguments)")}
    run(repository, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    run(repository, tmp_path / "c", "--n", "1", "--seed", "2", "--max-events", "5")
    (path,) = (tmp_path / "c").iterdir()
    assert len(read_trace(path).events) == 5


def test_a_tree_without_history_becomes_traces(repository: Path, tmp_path: Path) -> None:
    run(repository, tmp_path / "a", "--generate", "--n", "6")
    made = [read_trace(path) for path in sorted((tmp_path / "a").iterdir())]
    assert len(made) == 6
    assert len({trace.text for trace in made}) == 6
    run(repository, tmp_path / "other", "--generate", "--n", "6", "--seed", "2")
    others = [read_trace(path).text for path in (tmp_path / "other").iterdir()]
    assert set(others) != {trace.text for trace in made}
    expected = (repository / "src" / "Süß shop.py").read_text("utf-8")
    for trace in made:
        assert trace.text != expected
        assert list(applied(trace))[-1][1] == expected
    run(repository, tmp_path / "b", "--generate", "--n", "6", "--max-events", "5")
    cut = [read_trace(path) for path in sorted((tmp_path / "b").iterdir())]
    # Cutting one short does not change the others.
    assert [trace.text for trace in cut] == [trace.text for trace in made]


def test_sittings_join_traces_and_leave_the_last_midway() -> None:
    two, five, three = (
        typed("", text, path=f"{text}.js", max_events=1 + len(text)) for text in ("a", "abcd", "ab")
    )
    assert [len(trace.events) for trace in (two, five, three)] == [2, 5, 3]
    first, second = traces.sittings([two, five, three, five, five], 6)
    assert first == (two, replace(five, events=five.events[:4]))
    # What is left of a trace is not gone back to.
    assert second == (three, replace(five, events=five.events[:3]))
    assert list(traces.sittings([two], 3)) == []
    with pytest.raises(ValueError, match="n_events is 0"):
        list(traces.sittings([two], 0))


def test_a_place_without_history_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "empty"], "not a git repository"),
        ([tmp_path / "empty", "--generate"], "no traces from"),
    ):
        path, *options = map(str, arguments)
        result = CliRunner().invoke(traces.main, [path, str(tmp_path / "out"), *options])
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output
