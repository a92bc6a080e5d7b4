"""A person at an editor, at random: every answer of the engine is held to what it promises.

A Hypothesis state machine that edits files and asks after every edit, the engine stepped by hand
under a clock of its own. `tests/engine/test_state_machine.py` runs it briefly, and on engines with
faults; `perf/fuzz_states.py` for long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from engine.request import CompletionRequest
from perf.edited_file import PAIRS, EditedFile
from perf.sample_files import TEXTS
from perf.watched_engine import WatchedEngine

if TYPE_CHECKING:
    from engine.request import Completion
    from perf.tiny_world import World
    from perf.watched_engine import Budget, Check, Tally

MAX_CHARS = 1200

WORDS = ("self", ".items", " return", "amount", " x", "for ", "pri", "es", "_", "Größe", "if x")
MARKS = (" ", "  ", "\n", "\t", "\n\t", "\r\n", ".", ",", " = ", ": ", " ->", "#", "\\", ";")
OTHERS = (
    "1",
    "42",
    " 3.14",
    "🍰",
    "👩‍👩‍👧",
    "é",
    "e\u0301",
    "日本",
    "▁",
    "\ufeff",
    "[SUFFIX]",
    "</s>",
)
TYPED = st.one_of(
    *map(st.sampled_from, (WORDS, MARKS, OTHERS)),
    st.text("abs ._1(", min_size=1, max_size=6),
)
# Much alike, so that one often stands where another has been.
PASTED = st.builds(
    "{}{}{}".format,
    st.sampled_from(["a", "b", "", "    x = "]),
    st.sampled_from(
        ["self.items.append(item)\n        amount = amount + 1\n        item.x", "1, "]
    ),
    st.sampled_from(
        ["", "\n", " 🍰🍰🍰", "\n    def pay(self, now):\n        return self.items\n"]
    ),
)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What follows an edit, and how the engine is asked."""

    how: str
    n_steps: int
    ms_per_step: float
    trigger: str
    multiline: bool
    max_tokens: int
    deadline_ms: float | None
    proposal: str


ASKS = st.builds(
    Ask,
    how=st.sampled_from(
        [*["answer"] * 4, *["settle"] * 2, "nothing", "prepare", "read ahead", "leave", "cancel"]
    ),
    n_steps=st.integers(0, 4),
    ms_per_step=st.sampled_from([0.0, 25.0, 120.0]),
    trigger=st.sampled_from(["automatic", "automatic", "explicit", "raw"]),
    multiline=st.booleans(),
    max_tokens=st.integers(1, 4),
    deadline_ms=st.sampled_from([None, None, None, 0.0, 60.0, 300.0]),
    proposal=st.sampled_from(["", "", "self.items", "\n        return amount\n", "🍰 x"]),
)


class EditingMachine(RuleBasedStateMachine):
    """Edits three files and asks. Subclasses say in which world, and where to count."""

    world: ClassVar[World]
    budget: ClassVar[Budget]
    tally: ClassVar[Tally]
    checks: ClassVar[tuple[Check, ...]] = ()

    def __init__(self) -> None:
        """Open the files, the cursor of each a third down."""
        super().__init__()
        self.watched = WatchedEngine(self.world, self.budget, self.tally, self.checks)
        self.files = {name: EditedFile(text, len(text) // 3) for name, text in TEXTS.items()}
        self.headers = {name: f"# {name}\n" for name in TEXTS}
        self.name = next(iter(TEXTS))
        # The file, text, cursor and answer that can be accepted.
        self.shown: tuple[str, str, int, str] | None = None

    @property
    def file(self) -> EditedFile:
        """Give the file that is in front."""
        return self.files[self.name]

    # What a person does to the text in front.

    @rule(text=TYPED, ask=ASKS)
    def type_text(self, text: str, ask: Ask) -> None:
        self._insert(text)
        self._after("type", ask)

    @rule(text=PASTED, ask=ASKS)
    def paste(self, text: str, ask: Ask) -> None:
        self._insert(text)
        self._after("paste", ask)

    @rule(n_chars=st.one_of(st.integers(1, 3), st.integers(1, 60)), ask=ASKS)
    def delete(self, n_chars: int, ask: Ask) -> None:
        self.file.delete(n_chars)
        self._after("delete", ask)

    @rule(ask=ASKS)
    def delete_word(self, ask: Ask) -> None:
        self.file.delete_word()
        self._after("delete-word", ask)

    @rule(n_chars=st.integers(1, 20), ask=ASKS)
    def delete_after(self, n_chars: int, ask: Ask) -> None:
        self.file.delete_after(n_chars)
        self._after("delete after", ask)

    @rule(opener=st.sampled_from(list(PAIRS)), ask=ASKS)
    def auto_pair(self, opener: str, ask: Ask) -> None:
        self.file.insert_pair(opener)
        self._after("auto-pair", ask)

    @rule(ask=ASKS)
    def overtype(self, ask: Ask) -> None:
        if not self.file.overtype():
            self.file.insert_pair("(")
        self._after("overtype", ask)

    @rule(opener=st.sampled_from(["{", "(", "["]), is_new=st.booleans(), ask=ASKS)
    def enter_in_braces(self, opener: str, is_new: bool, ask: Ask) -> None:
        if is_new:
            self.file.insert_pair(opener)
        self.file.enter()
        self._after("enter", ask)

    @rule(ask=ASKS)
    def undo(self, ask: Ask) -> None:
        self.file.undo()
        self._after("undo", ask)

    @rule(part=st.floats(0, 1), ask=ASKS)
    def jump(self, part: float, ask: Ask) -> None:
        self.file.jump(round(part * len(self.file.text)))
        self._after("jump", ask)

    @rule(ask=ASKS)
    def jump_back(self, ask: Ask) -> None:
        self.file.jump_back()
        self._after("jump back", ask)

    @rule(part=st.floats(0, 1), n_chars=st.integers(0, 8), text=TYPED, ask=ASKS)
    def edit_above(self, part: float, n_chars: int, text: str, ask: Ask) -> None:
        end = round(part * self.file.cursor)
        self.file.replace(max(0, end - n_chars), end, text)
        self._after("edit above", ask)

    @rule(part=st.floats(0, 1), n_chars=st.integers(0, 8), text=TYPED, ask=ASKS)
    def edit_below(self, part: float, n_chars: int, text: str, ask: Ask) -> None:
        # Not at the cursor itself, which would go behind it.
        start = self.file.cursor + 1 + round(part * len(self.file.suffix))
        if start <= len(self.file.text):
            self.file.replace(start, start + n_chars, text)
        self._after("edit below", ask)

    @precondition(lambda self: self.shown is not None)
    @rule(ask=ASKS)
    def accept(self, ask: Ask) -> None:
        assert self.shown is not None
        name, text, cursor, shown = self.shown
        if (name, text, cursor) == (self.name, self.file.text, self.file.cursor):
            self._insert(shown)
        self._after("accept", ask)

    # What happens around it.

    @rule(ask=ASKS)
    def ask(self, ask: Ask) -> None:
        self._after("ask", ask)

    @rule(name=st.sampled_from(list(TEXTS)), ask=ASKS)
    def switch_file(self, name: str, ask: Ask) -> None:
        self.name = name
        self._after("switch file", ask)

    @rule(name=st.sampled_from(list(TEXTS)), is_changed=st.booleans(), ask=ASKS)
    def close_and_reopen(self, name: str, is_changed: bool, ask: Ask) -> None:
        self.watched.forget(name)
        file = self.files[name]
        text = file.text if is_changed else TEXTS[name]
        self.files[name] = EditedFile(text, min(file.cursor, len(text)))
        self._after("close and reopen", ask)

    @rule(name=st.sampled_from(list(TEXTS)))
    def close(self, name: str) -> None:
        """Closed files are looked at again without being opened: nothing is known of them."""
        self.watched.forget(name)
        self._count("close")

    @rule(n_imports=st.integers(0, 2), ask=ASKS)
    def import_more(self, n_imports: int, ask: Ask) -> None:
        self.headers[self.name] = f"# {self.name}\n" + "# import abc\n" * n_imports
        self._after("header", ask)

    @rule(kept=st.one_of(st.just(0), st.integers(0, 2**16)), trails=st.booleans(), ask=ASKS)
    def evict(self, kept: int, trails: bool, ask: Ask) -> None:
        self.watched.evict(kept, trails=trails)
        self._after("evict", ask)

    @rule(first=ASKS, text=TYPED, second=ASKS)
    def supersede(self, first: Ask, text: str, second: Ask) -> None:
        """Type on before the answer is there."""
        older = self.watched.submit(self._request(first))
        self.watched.run(first.n_steps, first.ms_per_step)
        assert older.ticket is not None
        n_passes = older.ticket.cost.n_passes
        self._insert(text)
        self._show(
            self.watched.finish(self.watched.submit(self._request(second)), second.ms_per_step)
        )
        assert older.ticket.cost.n_passes == n_passes, "a superseded request went on"
        assert older.answers, "a superseded request was not answered"
        self._count("supersede")

    @rule(first=PASTED, n_steps=st.integers(0, 3), second=PASTED, ask=ASKS)
    def change_mind(self, first: str, n_steps: int, second: str, ask: Ask) -> None:
        """Paste something else while what was pasted is being read."""
        self._insert(first)
        self.watched.engine.prepare(self._request(ask))
        self.watched.run(n_steps, ask.ms_per_step)
        self.file.undo()
        self._insert(second)
        self._after("change mind", ask)

    @rule(ms=st.sampled_from([1.0, 100.0, 1000.0]), n_steps=st.integers(0, 12))
    def wait(self, ms: float, n_steps: int) -> None:
        self.watched.run(n_steps, ms)
        self._count("wait")

    def teardown(self) -> None:
        """Let all work end."""
        self.watched.close()

    # How it asks.

    def _insert(self, text: str) -> None:
        if len(self.file.text) + len(text) > MAX_CHARS:
            self.file.delete(MAX_CHARS // 3)
        self.file.insert(text)

    def _count(self, name: str) -> None:
        self.tally.n_steps += 1
        self.tally.rules[name] += 1

    def _after(self, name: str, ask: Ask) -> None:
        request, watched = self._request(ask), self.watched
        match ask.how:
            case "answer":
                self._show(watched.finish(watched.submit(request), ask.ms_per_step))
            case "settle":
                request = replace(request, explicit=False, raw=False)
                self._show(watched.settle(request, ask.ms_per_step))
            case "leave":
                watched.submit(request)
                watched.run(ask.n_steps, ask.ms_per_step)
            case "prepare" | "read ahead":
                # As the next window is read, beside the document's own.
                key = f"{self.name}, ahead" if ask.how == "read ahead" else None
                watched.engine.prepare(request, key=key)
                watched.run(ask.n_steps, ask.ms_per_step)
            case "cancel":
                asked = watched.submit(request)
                watched.run(ask.n_steps, ask.ms_per_step)
                assert asked.ticket is not None
                asked.ticket.cancel()
                watched.finish(asked, ask.ms_per_step)
        self._count(name)

    def _show(self, completion: Completion) -> None:
        if completion.text:
            self.shown = (self.name, self.file.text, self.file.cursor, completion.text)

    def _request(self, ask: Ask) -> CompletionRequest:
        return CompletionRequest(
            document=self.name,
            header=self.headers[self.name],
            prefix=self.file.prefix,
            suffix=self.file.suffix,
            multiline=ask.multiline,
            max_tokens=ask.max_tokens,
            deadline_ms=ask.deadline_ms,
            explicit=ask.trigger == "explicit",
            raw=ask.trigger == "raw",
            proposal=ask.proposal,
            keep_logits=True,
        )


def machine(world: World, budget: Budget, tally: Tally, *checks: Check) -> type[EditingMachine]:
    """Give the machine for a world and a budget, counting into `tally`."""
    names = {"world": world, "budget": budget, "tally": tally, "checks": checks}
    return type("EditingMachine", (EditingMachine,), names)
