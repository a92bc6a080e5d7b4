"""Passages of files that are not open, to copy from: the repository's, read ahead on a thread."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from lsp_server.documents import with_unix_newlines
from lsp_server.repository_text import LOOK_AGAIN_S, MOVE_AGAIN_S, Look, look_around
from lsp_server.tracked_files import key_of
from lsp_server.uris import path_on_disk
from lsp_server.workspace_index import family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from typing import Any

    from engine.text_index import TextIndex
    from lsp_server.documents import Document
    from lsp_server.repository_text import Place, RepositoryText
    from lsp_server.settings import Settings

logger = logging.getLogger(__name__)

# Repositories whose text is kept, by language family: 20 MB each.
MAX_KEPT = 2
# Of the text before a cursor: its line, and the one above it.
BEFORE_CHARS = 1000
# The thread gives way to whoever else computes.
NICENESS = 10


class WorkspaceFiles:
    """What other files say, at once or not at all: nothing here waits. For one event loop."""

    def __init__(
        self, documents: Iterable[Document], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`documents` are those that are open; looked through anew each time.

        Nothing is read before `configure` says that it may be. `clock` gives seconds.
        """
        self._documents = documents
        self._clock = clock
        self._may_read = False
        self._exclude: tuple[str, ...] = ()
        self._thread: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self.looking: Future[Look] | None = None
        """What the thread is at, if anything; the next call of `passages` takes what it finds."""
        self._looking_for = ""
        # By document: what was found around it, and its file's `key_of`.
        self._looks: dict[str, Look] = {}
        self._keys: dict[str, Future[str]] = {}
        # When documents were closed that had been edited, and their keys.
        self._closed: dict[str, tuple[float, Future[str]]] = {}
        # By open document: compared with what was read, and whether it is other text.
        self._compared: dict[str, tuple[tuple[Document, int, TextIndex], bool]] = {}
        # The last asked for last.
        self._texts: OrderedDict[Place, RepositoryText] = OrderedDict()

    def configure(self, settings: Settings) -> None:
        """Take what may be read; where that changes, nothing stays of what was."""
        if (settings.read_workspace, settings.exclude) != (self._may_read, self._exclude):
            self.close()
            self._may_read, self._exclude = settings.read_workspace, settings.exclude
            self._stop = threading.Event()

    def close(self) -> None:
        """Forget everything, and have the thread end."""
        self._may_read = False
        self._stop.set()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._thread = self.looking = None
        kept: tuple[dict[Any, Any], ...] = (
            *(self._looks, self._keys, self._closed, self._compared, self._texts),
        )
        for one in kept:
            one.clear()

    def passages(self, document: Document, before: str, after: str = "") -> tuple[str, ...]:
        """What stands in other files around places like a cursor, with the text on its sides.

        The likest first. Nothing until they are read, which is begun here unless the
        document is a draft. Nothing of the document's own file, nor of any whose text is another
        by now: in the editor, or as far as is known on disk.
        """
        if not self._may_read or document.syntax is None or not _is_file(document):
            return ()
        own = self._key(document.uri)
        others = [
            (other, self._key(other.uri))
            for other in self._documents
            if other.uri != document.uri and _is_file(other)
        ]
        self._take()
        if self.looking is None and not document.is_draft and self._is_due(document.uri):
            self._looking_for = document.uri
            self.looking = self._worker().submit(
                look_around,
                document.uri,
                family_of(document.language_id),
                self._exclude,
                dict(self._texts),
                self._clock(),
                self._stop,
            )
        look = self._looks.get(document.uri)
        if look is None or look.place is None or look.place not in self._texts:
            return ()
        text = self._texts[look.place]
        self._texts.move_to_end(look.place)
        closed = [key for closed_s, key in self._closed.values() if closed_s >= text.checked_s]
        if not all(key.done() for key in (own, *closed, *(key for _, key in others))):
            return ()
        left_out = [key.result() for key in closed]
        left_out += [key.result() for other, key in others if self._is_other(other, text)]
        before = with_unix_newlines(before[-BEFORE_CHARS:])
        after = with_unix_newlines(after)
        return text.passages(before, after, own.result(), left_out)

    def forget(self, document: Document) -> None:
        """Take note that a document was closed: an edited one's file may be another by now."""
        uri = document.uri
        if document.revision > 0 and _is_file(document) and (self._texts or self.looking):
            self._closed[uri] = (self._clock(), self._key(uri))
        for kept in (self._keys, self._looks, self._compared):
            kept.pop(uri, None)

    def _is_other(self, document: Document, text: RepositoryText) -> bool:
        """Whether an open document is not what was read of its file; compared once a revision."""
        key = self._key(document.uri).result()
        if text.index is None or not text.has(key):
            return False
        state = (document, document.revision, text.index)
        known = self._compared.get(document.uri)
        if known is None or known[0] != state:
            is_other = text.is_other(key, with_unix_newlines(document.text))
            known = self._compared[document.uri] = (state, is_other)
        return known[1]

    def _key(self, uri: str) -> Future[str]:
        key = self._keys.get(uri)
        if key is None:
            key = self._keys[uri] = self._worker().submit(_key_of_uri, uri)
        return key

    def _is_due(self, uri: str) -> bool:
        look, now_s = self._looks.get(uri), self._clock()
        if look is None:
            return True
        if look.place is None:
            return now_s - look.looked_s >= LOOK_AGAIN_S
        text = self._texts.get(look.place)
        if text is None or not text.serves(look.folder):
            return now_s - look.looked_s >= MOVE_AGAIN_S
        return now_s - text.checked_s >= LOOK_AGAIN_S

    def _take(self) -> None:
        """Take what the thread has found, if it has come to an end."""
        if self.looking is None or not self.looking.done():
            return
        error = self.looking.exception()
        if error is None:
            look = self.looking.result()
        else:
            logger.warning("the repository is not read: %s: %s", type(error).__name__, error)
            look = Look(looked_s=self._clock())
        self.looking = None
        # Not for a document that was closed meanwhile.
        if self._looking_for in self._keys:
            self._looks[self._looking_for] = look
        if look.place is None or look.text is None:
            return
        self._texts[look.place] = look.text
        self._texts.move_to_end(look.place)
        while len(self._texts) > MAX_KEPT:
            self._texts.popitem(last=False)
        # Else they would keep an index that nothing else needs any more.
        indexes = [text.index for text in self._texts.values()]
        self._compared = {uri: one for uri, one in self._compared.items() if one[0][2] in indexes}
        oldest_s = min(text.checked_s for text in self._texts.values())
        self._closed = {uri: one for uri, one in self._closed.items() if one[0] >= oldest_s}

    def _worker(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                1, thread_name_prefix="workspace", initializer=_be_nice
            )
        return self._thread


def _is_file(document: Document) -> bool:
    return document.uri.startswith("file:")


def _key_of_uri(uri: str) -> str:
    """The key of the file that a URI names; that of none where it names none."""
    with suppress(ValueError):
        path = path_on_disk(uri)
        return "" if path is None else key_of(path)
    return ""


def _be_nice() -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            own = os.PRIO_PROCESS, threading.get_native_id()
            os.setpriority(*own, max(os.getpriority(*own), NICENESS))
