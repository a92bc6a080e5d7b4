"""A stretch of text being typed, with slips, second thoughts, and an editor that helps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf.auto_editing import closer_for, enter
from perf.hunks import n_common
from perf.keyboard import REACHING_MS, READING_MS
from perf.typed_next import NEXT_MAX_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.keyboard import Keyboard
    from perf.trace_format import Event

# A run of this length, and of this many lines, may be pasted in part.
LONG_RUN_CHARS, LONG_RUN_LINES = 200, 4
MAX_SLIP_CHARS = 4
# How much is taken back or accepted at a time: fewest and most characters.
UNDONE_CHARS = (5, 40)
ACCEPTED_CHARS = (3, 60)
MAX_DELETE_KEYS = 3

_BLANKS = re.compile(r"[ \t]*")
_LINE_STEP = re.compile(r"\n[ \t]*\S?")
_WORD_REST = re.compile(r"\w*")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How likely a person does what, where it could be done.

    Slips give the 6.31 % of keystrokes that correct an error in the study that `perf.keyboard`
    cites; the others are set by judgement.
    """

    slip: float = 0.05
    """Per letter; it takes one to four backspaces."""
    undo: float = 0.003
    """Per character."""
    look_away: float = 0.002
    """Per character."""
    accept: float = 0.02
    """Per word."""
    paste: float = 0.5
    """Per long run."""
    select: float = 0.3
    """Per text replaced within a line: typed over, not deleted first."""
    interrupt: float = 0.1
    """Per run of lines that a change above follows: it is made in the run's middle."""


CAREFUL = Habits(
    slip=0.0, undo=0.0, look_away=0.0, accept=0.0, paste=0.0, select=0.0, interrupt=0.0
)


class Run:
    """Text to type from an offset on.

    In the document stand, from `start` on: what is done of the text, indentation in excess that
    the editor put there, the cursor, and closers that the editor put behind it.
    """

    def __init__(self, keyboard: Keyboard, habits: Habits, text: str, start: int) -> None:
        self._keyboard = keyboard
        self._habits = habits
        self._text = text
        self._start = start
        self._done = 0
        self._excess = ""
        self._closers = ""
        # Earlier `_done` and `_closers`, to undo to.
        self._marks: list[tuple[int, str]] = []
        # Up to here it was undone before: once is enough.
        self._undone = 0

    @property
    def next(self) -> str:
        """What is left to type, or the beginning of it."""
        return self._text[self._done : self._done + NEXT_MAX_CHARS]

    def type_over(self, n_selected: int) -> Event:
        """Type the first character in the place of the selected ones before the cursor."""
        self._done = 1
        return self._change("type", -1, n_selected, self._text[0])

    def type(self) -> Iterator[Event]:
        """Type what is left."""
        pasted = self._pasted()
        while self._key:
            if self._excess and (self._key != "\n" or self._line_step()):
                yield from self._clear_excess()
            elif not self._excess and self._done in pasted:
                yield self._insert("paste", pasted.stop - self._done)
            else:
                if not self._excess:
                    yield from self._aside()
                if self._key:
                    yield self._press()
        yield from self._clear_excess()
        # What the editor closed and the text does not: the Delete key, or a selection.
        while self._closers:
            n_chars = 1 if len(self._closers) <= MAX_DELETE_KEYS else len(self._closers)
            self._closers = self._closers[n_chars:]
            yield self._change("delete", 0, n_chars, "")

    @property
    def _cursor(self) -> int:
        return self._start + self._done + len(self._excess)

    @property
    def _key(self) -> str:
        """The next character; empty at the end."""
        return self._text[self._done : self._done + 1]

    def _pasted(self) -> range:
        """The lines of a long run that are not typed, as offsets; they start with a line end."""
        dice = self._keyboard.dice
        line_ends = [n for n, character in enumerate(self._text) if character == "\n"]
        is_long = len(self._text) >= LONG_RUN_CHARS and len(line_ends) >= LONG_RUN_LINES
        if not is_long or not self._keyboard.chance(self._habits.paste):
            return range(0)
        first = dice.randrange(len(line_ends) // 2)
        last = first + max(1, int(len(line_ends) * dice.uniform(0.2, 0.5)))
        return range(line_ends[first], line_ends[min(last, len(line_ends) - 1)])

    def _aside(self) -> Iterator[Event]:
        """What may come between two keys."""
        chance, habits = self._keyboard.chance, self._habits
        before = self._text[self._done - 1 : self._done]
        at_word = self._key.isalpha() and not before.isalnum()
        if self._key.isalpha() and chance(habits.slip):
            yield from self._slip()
        elif self._done > self._undone and chance(habits.undo):
            yield from self._undo()
        elif chance(habits.look_away):
            yield from self._look_away()
        elif at_word and chance(habits.accept):
            yield from self._accept()
        if at_word:
            self._marks.append((self._done, self._closers))

    def _slip(self) -> Iterator[Event]:
        """Hit a wrong letter, perhaps type on, then take it all back."""
        dice, done = self._keyboard.dice, self._done
        wrong = dice.choice(_LETTERS.replace(self._key.lower(), ""))
        following = _matched(_WORD_REST, self._text, done + 1)
        n_chars = len(wrong + following[: dice.randrange(MAX_SLIP_CHARS)])
        for n, letter in enumerate((wrong + following)[:n_chars]):
            yield self._change("type", n, 0, letter, cursor=n + 1, next_="")
        for n in reversed(range(n_chars)):
            yield self._change("delete", n, 1, "", cursor=n, next_="" if n else None)

    def _undo(self) -> Iterator[Event]:
        """Take back the last few words in one step; they will be typed again."""
        fewest, most = UNDONE_CHARS
        marks = [mark for mark in self._marks if fewest <= self._done - mark[0] <= most]
        if not marks:
            return
        mark = self._keyboard.dice.choice(marks)
        written = self._text[mark[0] : self._done] + self._closers
        self._undone = self._done
        self._done, self._closers = mark
        # Of the closers, those that were overtyped or left behind since come back.
        n_gone = next(
            n for n in range(len(self._closers) + 1) if written.endswith(self._closers[n:])
        )
        n_kept = len(self._closers) - n_gone
        back = self._closers[:n_gone]
        yield self._change("undo", 0, len(written) - n_kept, back, pause_ms=REACHING_MS)

    def _look_away(self) -> Iterator[Event]:
        """Read the end of another line, then come back."""
        keyboard, document = self._keyboard, self._keyboard.document
        line = keyboard.dice.randrange(len(document.lines))
        yield keyboard.jump(document.line_start(line) + len(document.lines[line].rstrip("\n")))
        yield keyboard.jump(self._cursor, self.next, READING_MS)

    def _accept(self) -> Iterator[Event]:
        """Take the rest of the line as a suggestion, without what stands behind the cursor."""
        line, _, _ = self._text[self._done :].partition("\n")
        if self._closers:
            line, _, _ = line.partition(self._closers[0])
        fewest, most = ACCEPTED_CHARS
        if fewest <= len(line) <= most:
            yield self._insert("accept", len(line))

    def _press(self) -> Event:
        """Press one key, with what the editor makes of it."""
        key, closers, cursor = self._key, self._closers, self._cursor
        step = self._line_step()
        if step:
            # The closer has its own line already: down and to the end of it.
            self._done, self._closers = self._done + len(step), closers[len(step) :]
            return self._keyboard.jump(self._cursor, self.next, None)
        if key == "\n":
            return self._enter()
        if closers.startswith(key):
            self._done, self._closers = self._done + 1, closers[1:]
            return self._change("type", -1, 1, key)
        unit = self._keyboard.unit
        if self._text.startswith(unit, self._done) and not self._line_before().strip():
            return self._insert("type", len(unit))
        before, behind = self._keyboard.around(cursor)
        closer = closer_for(key, before, behind)
        self._done, self._closers = self._done + 1, closer + closers
        return self._change("type", -1, 0, key + closer)

    def _line_step(self) -> str:
        """What lies up to behind the closer on the next line, if that is what comes next."""
        if not self._closers.startswith("\n"):
            return ""
        step = _matched(_LINE_STEP, self._closers, 0)
        return step if self._text.startswith(step, self._done) else ""

    def _enter(self) -> Event:
        keyboard = self._keyboard
        _, behind = keyboard.around(self._cursor)
        is_python = keyboard.document.language_id == "python"
        pressed = enter(self._line_before(), behind, keyboard.unit, is_python=is_python)
        # Editors take the indentation of a line away that is left blank.
        start, n_old = self._cursor - len(self._excess), len(self._excess)
        indentation = pressed.before_cursor[1:]
        wanted = _matched(_BLANKS, self._text, self._done + 1)
        n_kept = n_common(indentation, wanted)
        self._done += 1 + n_kept
        self._excess = indentation[n_kept:]
        self._closers = pressed.behind_cursor + self._closers
        return keyboard.change(
            "type",
            start,
            n_old,
            pressed.before_cursor + pressed.behind_cursor,
            cursor=self._cursor,
            next_="" if self._excess and self._key != "\n" else self.next,
        )

    def _clear_excess(self) -> Iterator[Event]:
        """Backspace through indentation, a level at a time."""
        unit = self._keyboard.unit
        while self._excess:
            n_chars = len(unit) if self._excess.endswith(unit) else 1
            self._excess = self._excess[:-n_chars]
            yield self._change("delete", 0, n_chars, "", next_="" if self._excess else None)

    def _insert(self, kind: str, n_chars: int) -> Event:
        """Put the next characters into the document as they are."""
        text = self._text[self._done : self._done + n_chars]
        self._done += n_chars
        pause_ms = None if kind == "type" else REACHING_MS
        return self._change(kind, -n_chars, 0, text, pause_ms=pause_ms)

    def _line_before(self) -> str:
        return self._keyboard.line_before(self._cursor)

    def _change(
        self,
        kind: str,
        start: int,
        n_old: int,
        text: str,
        *,
        cursor: int = 0,
        next_: str | None = None,
        pause_ms: tuple[float, float] | None = None,
    ) -> Event:
        """Note a change; `start` and `cursor` count from where the run's cursor now is."""
        return self._keyboard.change(
            kind,
            self._cursor + start,
            n_old,
            text,
            cursor=self._cursor + cursor,
            next_=self.next if next_ is None else next_,
            pause_ms=pause_ms,
        )


def _matched(pattern: re.Pattern[str], text: str, start: int) -> str:
    """What a pattern that also fits the empty string matches from an offset on."""
    match = pattern.match(text, start)
    assert match is not None, f"{pattern.pattern} matches the empty string"
    return match[0]
