"""Suggestions that were shown, and what is left of one when a part of it has been typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from lsp_server.context import SUFFIX_ROOM_CHARS
from lsp_server.trimming import trim

if TYPE_CHECKING:
    from collections.abc import Callable

    from lsp_server.documents import Document

# Suggestions of a document that backspace can bring back.
MAX_KEPT = 16
# What editors put after the cursor by themselves; it ends no epoch of the engine's either.
CLOSERS = frozenset(")]}>'\"`; \t\r\n")


@dataclass
class Kept:
    """Texts that fit at one place, and the line that they fit into."""

    texts: tuple[str, ...]
    kind: str
    """The kind of prompt that they came from: "epoch", "trunk" or "bridge"."""
    tag: object
    """The caller's."""
    before: str
    """The line up to where the texts start."""
    after: str
    """The rest of the line, without its end."""
    start: int
    """Of the line; all edits since have been between here and `end`."""
    end: int
    revision: int

    def follow(self, document: Document) -> bool:
        """Take account of the edits since; False once the text around the line has changed."""
        edits = document.edits_since(self.revision)
        if edits is None:
            return False
        for edit in edits:
            if not self.start <= edit.start <= edit.old_end <= self.end:
                return False
            self.end += edit.new_end - edit.old_end
        self.revision = document.revision
        return True

    def rests(self, document: Document, start: int, end: int, chosen: str) -> list[str]:
        """What is left of the texts, were `chosen` to stand in place of what is in [start, end).

        Behind it may stand what did when they were shown, after nothing but closers.
        """
        n_longest = len(self.before) + max(map(len, self.texts))
        n_extra = self.end - end - len(self.after)
        if not (self.start <= start <= end and start - self.start <= n_longest):
            return []
        if not 0 <= n_extra <= SUFFIX_ROOM_CHARS:
            return []
        line = document.slice(self.start, start) + chosen
        behind = document.slice(end, self.end)
        extra = behind[:n_extra]
        if not line.startswith(self.before) or not behind.endswith(self.after):
            return []
        if not CLOSERS.issuperset(extra):
            return []
        typed = line[len(self.before) :]
        rests = [text[len(typed) :] for text in self.texts if text.startswith(typed)]
        if extra:
            # The bracket that an editor closed is in the text as well.
            here = line[max(line.rfind("\n"), line.rfind("\r")) + 1 :]
            rests = [trim(here, rest, behind, document.newline) for rest in rests]
        return [rest for rest in rests if rest.strip()]


class TypeThrough:
    """What was shown in each document, the newest last. For one event loop."""

    def __init__(self) -> None:
        self.n_answers = 0
        """Requests that were answered without the engine."""
        self._kept: WeakKeyDictionary[Document, list[Kept]] = WeakKeyDictionary()

    def keep(
        self,
        document: Document,
        start: int,
        end: int,
        texts: tuple[str, ...],
        kind: str,
        tag: object = None,
    ) -> None:
        """Keep texts that fit in place of what is in [start, end), on a line of the document."""
        line = document.line_of(start)
        line_start = document.line_start(line)
        content = document.lines[line].rstrip("\r\n")
        kept = self._kept.setdefault(document, [])
        new = Kept(
            texts=texts,
            kind=kind,
            tag=tag,
            before=content[: start - line_start],
            after=content[end - line_start :],
            start=line_start,
            end=line_start + len(content),
            revision=document.revision,
        )
        kept[:] = [one for one in kept if (one.start, one.before) != (line_start, new.before)]
        kept.append(new)
        del kept[:-MAX_KEPT]

    def rests(
        self,
        document: Document,
        start: int,
        end: int,
        chosen: str = "",
        *,
        is_outdated: Callable[[Kept], bool],
    ) -> tuple[list[str], object]:
        """What is left of the newest suggestion that the text up to the cursor goes along.

        The cursor stands behind `chosen`, which is in place of what is in [start, end). With it
        comes the suggestion's tag. An outdated one is dropped, as is one that an edit elsewhere
        has made doubtful. Costs what the edits since the last call and the line cost.
        """
        kept = self._kept.get(document, [])
        kept[:] = [one for one in kept if one.follow(document)]
        for one in reversed(kept):
            rests = one.rests(document, start, end, chosen)
            if rests and is_outdated(one):
                kept.remove(one)
            elif rests:
                return rests, one.tag
        return [], None
