"""Which suffix a document's states were built with, and for how long it holds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# What editors put after the cursor by themselves: closing brackets, quotes, and white space.
CLOSERS = frozenset(")]}>'\"`; \t\r\n")
MAX_CLOSER_CHARS = 64
# Epochs remembered for a document, so that a jump back or an undo finds its states again.
MAX_EPOCHS = 8
MAX_DOCUMENTS = 256


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A frozen suffix and header: while both hold, typing only ever appends to the prompt."""

    suffix: str
    header: str

    def holds(self, after_cursor: str) -> bool:
        """Tell whether the text after the cursor is the suffix behind nothing but closers."""
        n_extra = len(after_cursor) - len(self.suffix)
        if not 0 <= n_extra <= MAX_CLOSER_CHARS:
            return False
        return CLOSERS.issuperset(after_cursor[:n_extra]) and after_cursor.endswith(self.suffix)


class Epochs:
    """The epochs of the documents being edited, the most recently used kept."""

    def __init__(self) -> None:
        """Start without any document."""
        self._by_document: OrderedDict[str, list[Epoch]] = OrderedDict()

    def at(self, document: str, *, header: str, after_cursor: str) -> Epoch:
        """Give the newest epoch of the document that holds here, else a new one."""
        epochs = self._by_document.setdefault(document, [])
        self._by_document.move_to_end(document)
        for epoch in reversed(epochs):
            if epoch.header == header and epoch.holds(after_cursor):
                break
        else:
            epoch = Epoch(suffix=after_cursor, header=header)
        if epoch in epochs:
            epochs.remove(epoch)
        epochs.append(epoch)
        del epochs[:-MAX_EPOCHS]
        while len(self._by_document) > MAX_DOCUMENTS:
            self._by_document.popitem(last=False)
        return epoch

    def forget(self, document: str) -> None:
        """Drop a document's epochs."""
        self._by_document.pop(document, None)
