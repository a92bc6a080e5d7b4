"""Takes the code out of a recorded session and leaves its shape.

Letters and digits of all words give way to others, in names, literals and comments alike; only
the language's keywords stay, and the letters that say how a number is written. The n-th letter of
a word depends on the letters before it and on a secret that is thrown away. So equal words stay
equal, different ones different, a half-typed word is the beginning of the whole one, and nothing
changes its length: positions and changes of the session stay as they are. A letter that is typed
into the middle of a word leaves the rest of that word as it was, which may then differ from where
the same word was typed in one go.
"""

from __future__ import annotations

import random
import re
import secrets
import unicodedata
from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from lsp_server.documents import Change, Document, Position
from lsp_server.syntax import language_id_of
from perf.keywords import keywords_of
from perf.trace_format import Done, Opened, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perf.trace_format import Event

# Shorter words are found in every text.
MIN_SECRET_CHARS = 3
MAX_ATTEMPTS = 20
# What begins a literal of a number, but for what stands behind a point or a sign.
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F_]*")
_NUMBER = re.compile(
    rf"(?:{_HEXADECIMAL.pattern}|0[bBoO][0-9_]*|[0-9][0-9_]*(?:[eE][0-9_]*)?)[jJlLuUfFn]?_*"
)
_WORD = re.compile(r"\w+")
_WORD_BEFORE = re.compile(r"\w*$")
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
_CLASSES = (_VOWELS, _CONSONANTS, _VOWELS.upper(), _CONSONANTS.upper(), "123456789")
_HEX_LETTERS = ("abcdef", "ABCDEF")
_DIGITS = "0123456789"
_BLOCK = 64


def scrubbed(session: Session, secret: str | None = None) -> Session:
    """The session with other words in it; ValueError where no other words can be found.

    secret: equal ones give equal sessions; left out, it is a new one that nobody knows.
    """
    originals = secret_words(session)
    words = set(words_of_all_states(session))
    secret = secret or secrets.token_hex(16)
    for attempt in range(MAX_ATTEMPTS):
        scrubber = Scrubber(f"{secret} {attempt}", words, _keywords(session), originals)
        done = scrubber.session(session)
        n_left = len(originals.intersection(words_of_all_states(done)))
        if not n_left:
            return done
    raise ValueError(f"{n_left} of {len(originals)} words would stay")


def secret_words(session: Session) -> set[str]:
    """The words that scrubbing has to take out: names, literals, comments of all states.

    Not numbers, nor keywords or parts of one, which stand there while it is typed or deleted.
    """
    keywords = " ".join(_keywords(session))

    def is_secret(word: str) -> bool:
        is_name = len(word) >= MIN_SECRET_CHARS and any(map(str.isalpha, word))
        return is_name and not _NUMBER.fullmatch(word) and word not in keywords

    return set(filter(is_secret, words_of_all_states(session)))


def words_of_all_states(session: Session) -> Iterator[str]:
    """Every word that stands in a text at some time, or in what comes next, or in a path."""
    documents: dict[str, Document] = {}
    for step in session.steps:
        if isinstance(step, Opened):
            documents[step.path] = Document("", step.language_id, 0, step.text)
            yield from _WORD.findall(step.text)
            yield from _WORD.findall(_without_suffix(step.path))
            continue
        document = documents[step.path]
        for change in step.event.changes:
            edit = document.apply(change)
            first, last = document.line_of(edit.start), document.line_of(edit.new_end)
            for line in document.lines[first : last + 1]:
                yield from _WORD.findall(line)
            yield from _WORD.findall(change.text)
        before = _line_before(document, step.event.cursor)
        yield from _WORD.findall(before + step.event.next)
        yield from _WORD.findall(step.event.next)


class Scrubber:
    """Maps characters of words, given what of the word stands before them."""

    def __init__(
        self, secret: str, words: Iterable[str], keywords: frozenset[str], originals: set[str]
    ) -> None:
        """`words` are all that will be asked for; no image of one is among the `originals`."""
        self._secret = secret
        self._originals = originals
        # What stays: the ways to keywords, by what comes before.
        self._fixed: dict[str, set[str]] = defaultdict(set)
        for keyword in keywords:
            for n, character in enumerate(keyword):
                self._fixed[keyword[:n]].add(character)
        self._next: dict[str, set[str]] = defaultdict(set)
        for word in words:
            for n, character in enumerate(word):
                self._next[word[:n]].add(character)
        self._images: dict[str, str] = {"": ""}
        self._tables: dict[str, dict[str, str]] = {}

    def text(self, text: str, before: str = "") -> str:
        """A text's image; `before` is the line up to it, as it was."""
        match = _WORD_BEFORE.search(before)
        assert match is not None, "the pattern matches the empty string"
        word, out = match[0], []
        for character in text:
            if character == "_" or character.isalnum():
                out.append(self._character(word, character))
                word += character
            else:
                out.append(character)
                word = ""
        return "".join(out)

    def path(self, path: str) -> str:
        """A path's image, with the file's suffix where that tells the language."""
        rest = _without_suffix(path)
        return self.text(rest) + path[len(rest) :]

    def session(self, session: Session) -> Session:
        """A session's image."""
        documents: dict[str, Document] = {}
        steps: list[Opened | Done] = []
        for step in session.steps:
            path = self.path(step.path)
            if isinstance(step, Opened):
                documents[step.path] = Document("", step.language_id, 0, step.text)
                steps.append(replace(step, path=path, text=self.text(step.text)))
            else:
                event = self._event(step.event, documents[step.path])
                steps.append(Done(path=path, event=event))
        return Session(name=session.name, steps=tuple(steps))

    def _event(self, event: Event, document: Document) -> Event:
        changes = []
        for change in event.changes:
            before = "" if change.range is None else _line_before(document, change.range[0])
            changes.append(Change(text=self.text(change.text, before), range=change.range))
            document.apply(change)
        next_ = self.text(event.next, _line_before(document, event.cursor))
        return replace(event, changes=tuple(changes), next=next_)

    def _character(self, word: str, character: str) -> str:
        """The image of what follows the beginning of a word."""
        if word not in self._tables:
            self._tables[word] = self._table(word)
        table = self._tables[word]
        if character not in table:
            # A beginning that no word has: from a change in a word's middle.
            self._next[word].add(character)
            self._tables[word] = table = self._table(word)
        return table[character]

    def _table(self, word: str) -> dict[str, str]:
        """Images of all characters that may follow, such that no two have the same."""
        before = self._image(word)
        for attempt in range(MAX_ATTEMPTS):
            dice = random.Random(f"{self._secret} {attempt} {word}")
            table: dict[str, str] = {}
            for class_ in {_alike(word, character): None for character in sorted(self._next[word])}:
                table |= _cycle(class_, self._fixed.get(word, set()), dice)
            images = (before + table[character] for character in self._next[word])
            if self._originals.isdisjoint(images):
                break
        return table

    def _image(self, word: str) -> str:
        """The image of a word's beginning."""
        if word not in self._images:
            self._images[word] = self._image(word[:-1]) + self._character(word[:-1], word[-1])
        return self._images[word]


def _without_suffix(path: str) -> str:
    """A path without the suffix that says which language it is in; whole where none does."""
    return path if language_id_of(path) == "plaintext" else path[: path.rindex(".")]


def _cycle(class_: str, fixed: set[str], dice: random.Random) -> dict[str, str]:
    """Each character of a class to another one; the fixed ones to themselves."""
    free = [character for character in class_ if character not in fixed]
    dice.shuffle(free)
    table = {character: character for character in class_}
    return table | dict(zip(free, free[1:] + free[:1], strict=True))


def _alike(word: str, character: str) -> str:
    """The characters that may stand in for one behind a word's beginning, it among them.

    Letters of a number that say how it is written have nothing beside them, and stay.
    """
    class_ = _class_of(character)
    if not word or word[0] not in _DIGITS:
        return class_
    if _NUMBER.fullmatch(word + character):
        if character in _DIGITS:
            return class_
        is_hexadecimal = _HEXADECIMAL.fullmatch(word + character)
        letters = next((some for some in _HEX_LETTERS if character in some), "")
        return letters if is_hexadecimal and letters else character
    if character in _DIGITS:
        # No number any more, so that a zero is as good as another digit.
        return _DIGITS
    return "".join(one for one in class_ if not _NUMBER.fullmatch(word + one))


@cache
def _class_of(character: str) -> str:
    """The characters that may stand in for one: as long in UTF-16, and of the same kind."""
    for class_ in _CLASSES:
        if character in class_:
            return class_
    if character.isascii():
        # Underscores, and the zero, with which other numbers begin than with any digit.
        return character
    start = ord(character) // _BLOCK * _BLOCK
    category = unicodedata.category(character)
    alike = (chr(n) for n in range(start, start + _BLOCK))
    return "".join(one for one in alike if unicodedata.category(one) == category)


def _keywords(session: Session) -> frozenset[str]:
    """The keywords of the session's languages, but for those that begin with one of its names."""
    keywords = frozenset(
        word for trace in session.traces for word in keywords_of(trace.language_id)
    )
    # As opened: nothing is half-typed there.
    names = {word for trace in session.traces for word in _WORD.findall(trace.text)} - keywords
    # Else the name would go the way of the keyword, and stay.
    return frozenset(
        keyword
        for keyword in keywords
        if not any(keyword[:n] in names for n in range(MIN_SECRET_CHARS, len(keyword)))
    )


def _line_before(document: Document, position: Position) -> str:
    """The line up to a position."""
    offset = document.offset_at(position)
    return document.slice(document.line_start(document.line_of(offset)), offset)
