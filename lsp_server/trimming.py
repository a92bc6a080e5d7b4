"""Fit a suggestion to the text around it: nothing doubled, nothing beyond the current block."""

from __future__ import annotations

import re

from engine.blocks import continues_block, opens_block
from engine.brackets import CLOSER, CLOSERS, QUOTES, pairs
from lsp_server.documents import with_unix_newlines
from lsp_server.indentation import columns, leading_blanks, reindented, without_lead

# What may be doubled without the rest of its line: what editors insert, and what follows it.
_PUNCTUATION = CLOSERS | frozenset(QUOTES + ";:,> ")
# Brackets are paired within so many characters on either side of the cursor.
_PAIRED_CHARS = 1000
_TRAILING_BLANKS = re.compile(r"[ \t]+\n")
_WORD = re.compile(r"\w+")
_OPENED_TWICE = re.compile(r"\"\"\"|'''|[\"'(\[{]")
# Words that are doubled without the rest of their line: fewer characters are chance.
_MIN_OVERLAP_CHARS = 4
# A shorter rest of line stands inside other code by chance.
_MIN_WORD_REST_CHARS = 3
# What no statement starts with, and an end tag or another element: what stands before goes on.
_GOES_ON = re.compile(r"\s*[,.+<=|&]")
# Its semicolon ends a character, not a statement.
_ENTITY = re.compile(r"&#?\w+;$")
_PYTHON_COMMENT = re.compile(r"(?:^|\s)#.*")


def trim(
    before: str,
    suggestion: str,
    after: str,
    newline: str = "\n",
    indent_unit: str | None = None,
    *,
    is_indented: bool = False,
    is_python: bool = False,
) -> str:
    """Cut from a suggestion what does not belong between `before` and `after`; "" if nothing does.

    before: the cursor's line up to the cursor. after: the text from the cursor on, with as many
    following lines as are at hand. Line ends in the answer are `newline`, and levels of
    indentation `indent_unit` (None: as they are), whatever the model wrote. is_indented: the
    blanks before the cursor are all that its line should have. is_python: whether lines are parts
    of a block by their indentation alone, with no bracket open above the cursor's line.
    """
    text = _TRAILING_BLANKS.sub("\n", with_unix_newlines(suggestion))
    rest, _, below = with_unix_newlines(after).partition("\n")
    rest = rest.rstrip()
    if _restates_word(text, before, rest):
        return ""
    text = _without_opener(before, text, rest)
    text = reindented(before, text, indent_unit)
    if is_indented:
        text = without_lead(text)
    text = _without_line_below(before, text, rest, below)
    text = _within_block(before, text)
    if is_python:
        text = _without_stray_step(before, text)
    if rest:
        text = _without_rest(before, text, rest)
        text = _without_end(text, rest)
        text = _fit_blanks(text, rest)
    else:
        text = text.rstrip()
    return text.replace("\n", newline) if text.strip() else ""


def _restates_word(text: str, before: str, rest: str) -> bool:
    """Whether a text goes on with the word, or the rest of one, that stands after the cursor."""
    word, first = _WORD.match(rest), _WORD.match(text)
    if word is None or first is None:
        return False
    is_inside_word = _WORD.match(before[-1:]) is not None
    return first[0].startswith(word[0]) if is_inside_word else first[0] == word[0]


def _without_opener(before: str, text: str, rest: str) -> str:
    """Cut a quote or bracket that the text opens once more: the one before the cursor is meant.

    A bracket only where the text leaves it open and the rest of the line closes one of the two.
    """
    opened = _OPENED_TWICE.match(text)
    if opened is None or not before.endswith(opened[0]):
        return text
    without = text[len(opened[0]) :]
    if opened[0] in CLOSER:
        is_left_open = pairs(text)[1] and rest.startswith(CLOSER[opened[0]])
        return without if is_left_open and rest[1:2] != rest[0] else text
    still_open = pairs(before[-_PAIRED_CHARS:])[1]
    return without if still_open and without[:1].isalnum() else text


def _without_line_below(before: str, text: str, rest: str, below: str) -> str:
    """Cut at the line that stands below the cursor already.

    The same line has the same indentation. A closing bracket alone on it then closes what the
    document closes already.
    """
    line_below = next((line.rstrip() for line in below.split("\n") if line.strip()), None)
    if line_below is None:
        return text
    lines = text.split("\n")
    if not rest and any(map(str.isalnum, line_below)):
        goes_on_with_it = before.strip() and lines[0].strip() == line_below.strip()
        if goes_on_with_it or (before + lines[0]).rstrip() == line_below:
            return ""
    for n, line in enumerate(lines[1:], start=1):
        if line.rstrip() == line_below:
            return "\n".join(lines[:n])
    return text


def _within_block(before: str, text: str) -> str:
    """Cut at the line that leaves the block in which the suggestion starts."""
    lines = text.split("\n")
    composed = [before + lines[0], *lines[1:]]
    first = next((n for n, line in enumerate(composed) if line.strip()), None)
    if first is None:
        return text
    base = columns(composed[first])
    opened = opens_block(composed[first])
    for n, line in enumerate(composed[first + 1 :], start=first + 1):
        code = line.strip()
        if not code or columns(line) > base:
            continue
        if columns(line) < base:
            return "\n".join(lines[:n])
        if not opened:
            # A statement beside the first one.
            continue
        closes = code[0] in CLOSERS
        if not closes and not continues_block(code):
            return "\n".join(lines[:n])
        if closes and not opens_block(line):
            return "\n".join(lines[: n + 1])
    return text


def _without_stray_step(before: str, text: str) -> str:
    """Cut at the line of Python that is deeper than one that opens nothing."""
    if '"""' in text or "'''" in text:
        return text
    lines = text.split("\n")
    composed = [before + lines[0], *lines[1:]]
    last: int | None = None
    for n, line in enumerate(composed):
        if not _PYTHON_COMMENT.sub("", line).strip():
            continue
        if last is not None and columns(line) > columns(composed[last]):
            above = composed[last]
            opens = opens_block(above) or opens_block(_PYTHON_COMMENT.sub("", above))
            if not opens and not above.endswith("\\") and not pairs("\n".join(composed[:n]))[1]:
                return "\n".join(lines[: last + 1])
        last = n
    return text


def _without_rest(before: str, text: str, rest: str) -> str:
    """Cut what the rest of the cursor's line says already.

    Of the cuts that can be meant, the one that leaves fewest brackets and quotes of the finished
    line without their partner; the deepest overlap with the rest where several do.
    """
    before = before[-_PAIRED_CHARS:]
    n_rest = len(rest)
    if text.strip() == rest and not CLOSERS.issuperset(rest):
        # A bracket may close one that the rest leaves open, but what else pairs does so by chance.
        return ""
    says_it_all = n_rest >= _MIN_OVERLAP_CHARS and text.rstrip().endswith(rest)
    if says_it_all and _is_between_words(text.rstrip(), rest, n_rest):
        return text.rstrip()[:-n_rest]
    candidates = [text[:end] for end in _overlaps(text.rstrip(), rest)]
    contained = _find_words(text.partition("\n")[0], rest)
    if contained >= 0 and len(rest) >= _MIN_WORD_REST_CHARS and any(map(str.isalnum, rest)):
        candidates.append(text[:contained])
    candidates.append(text)
    outer_closer = first_outer_closer(before, text)
    if outer_closer is not None:
        inside = text[:outer_closer]
        candidates += [inside[:end] for end in _overlaps(inside, rest)] + [inside]
    return min(candidates, key=lambda kept: _n_unpaired(before + kept + rest[:_PAIRED_CHARS]))


def _without_end(text: str, rest: str) -> str:
    """Drop the semicolon that would end a statement in front of what belongs to it."""
    bare = text.rstrip()
    ends_early = bare.endswith(";") and _GOES_ON.match(rest) and not _ENTITY.search(bare)
    return bare[:-1] if ends_early else text


def _overlaps(text: str, rest: str) -> list[int]:
    """Where in `text` an end of it starts that `rest` starts with; the longest end first."""
    starts = []
    for n in range(min(len(text), len(rest)), 0, -1):
        doubled = rest[:n]
        may_be_cut = (
            n == len(rest)
            or (doubled.strip() and _PUNCTUATION.issuperset(doubled))
            or (n >= _MIN_OVERLAP_CHARS and _is_between_words(text, rest, n))
        )
        if may_be_cut and text.endswith(doubled):
            starts.append(len(text) - n)
    return starts


def _find_words(text: str, words: str) -> int:
    """Where words stand in a text that are not parts of longer ones, or -1."""
    if len(words) > len(text):
        return -1
    start = r"\b" if _WORD.match(words) else ""
    end = r"\b" if _WORD.match(words[-1:]) else ""
    found = re.search(start + re.escape(words) + end, text)
    return found.start() if found else -1


def _is_between_words(text: str, rest: str, n: int) -> bool:
    """Whether the last n characters of a text, the first n of the rest, hold whole words."""
    edges = (text[-n - 1 : len(text) - n + 1], rest[n - 1 : n + 1])
    cuts_a_word = any(len(edge) == 2 and _WORD.fullmatch(edge) for edge in edges)
    return any(map(str.isalnum, rest[:n])) and not cuts_a_word


def first_outer_closer(before: str, text: str) -> int | None:
    """Where `text` first closes a bracket or quote that was open before it on its line."""
    before = before[-_PAIRED_CHARS:]
    line = before + text
    outer = (at for at, opener in pairs(line)[0] if at >= len(before) > opener)
    first = next(outer, None)
    return None if first is None else first - len(before)


def wrong_closer(before: str, text: str) -> int | None:
    """Where `text` first closes a bracket although a later one of another kind is still open."""
    before = before[-_PAIRED_CHARS:]
    whole = before + text
    unmatched = (at for at, opener in pairs(whole)[0] if at >= len(before) and opener < 0)
    first = next(unmatched, None)
    # Where none is open, its partner is out of sight.
    return None if first is None or not pairs(whole[:first])[1] else first - len(before)


def closing_lines(before: str, text: str) -> list[str]:
    """Lines that close the block which the first line with something on it opens with a brace.

    before: the cursor's line up to the cursor. Each line stands as far right as the one whose
    brackets it closes, the innermost first. None where no block is left open, or a quote is.
    """
    whole = before + text
    lines = whole.splitlines(keepends=True)
    opener = next(filter(str.strip, lines), "")
    still_open = pairs(whole)[1]
    if not opener.rstrip().endswith("{") or any(whole[at] in QUOTES for at in still_open):
        return []
    closing: list[str] = []
    start = 0
    for line in lines:
        opened = [CLOSER[whole[at]] for at in still_open if start <= at < start + len(line)]
        if opened:
            closing.append(leading_blanks(line) + "".join(reversed(opened)))
        start += len(line)
    return closing[::-1]


def _n_unpaired(text: str) -> int:
    paired, still_open = pairs(text)
    return len(still_open) + sum(opener < 0 for _, opener in paired)


def _fit_blanks(text: str, rest: str) -> str:
    """Drop trailing blanks, except those that set off the rest of the line."""
    bare = text.rstrip()
    blanks = text[len(bare) :]
    if "\n" in blanks:
        # A closing bracket keeps the line of its own that the model gave it.
        return bare + blanks[blanks.rindex("\n") :] if rest[0] in CLOSERS else bare
    return bare if rest[0] in _PUNCTUATION else text
