"""Records a session: what an editor tells of texts, keys and requests, as a keystroke trace.

The format is that of `keystate profile`: JSON lines, a document's text where it is opened, then
one event each. Events have no `next`: who reads a trace finds out what was typed next.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from lsp_server.features.accepted import ACCEPTED
from lsp_server.private_files import is_secret
from lsp_server.uris import path_in_prompts, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**20
# What one key writes besides blanks: itself, and the bracket or quote that closes it.
MAX_KEY_CHARS = 2

_Json = dict[str, Any]


class Recorder:
    """Writes what passes by to a file of its own, for its user's eyes alone.

    Nothing that goes wrong here is noticed by who is being served. Not recorded are notebooks,
    files whose names say that they hold secrets, and all beyond `max_bytes`. What an undo did
    looks like deleting or pasting.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a file; beside `path`, under a name with a number, where there is one already.

        `clock` gives seconds. Raises OSError where no file can be written.
        """
        self.path, descriptor = _new_file(path)
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115
        self._left_bytes = max_bytes
        self._clock = clock
        self._began_s: float | None = None
        self._roots: list[str] = []
        # Paths by URI: of what is open, and of what ever was.
        self._open: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        # Of the document that the last line was about.
        self._here = ""
        self._cursors: dict[str, _Json] = {}
        # An event of which more may be heard, and its document.
        self._pending: tuple[str, _Json] | None = None

    def tap(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """The same messages, recorded as they pass."""
        try:
            for body in messages:
                self._hear(body)
                yield body
        finally:
            self._end()

    @property
    def warning(self) -> str:
        """What whoever is recorded has to know."""
        return f"your code and every key you press are being written to {self.path}"

    def _hear(self, body: bytes) -> None:
        if self._file.closed:
            return
        try:
            message = json.loads(body)
            hear = _HEARD.get(message.get("method"))
            if hear is not None:
                hear(self, message.get("params"))
        except OSError as error:
            logger.warning("the recording ends: %s", error)
            self._file.close()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # The server will say what is wrong with the message; it may hold code.
            logger.warning("a message was not recorded (%s)", type(error).__name__)

    def _initialize(self, params: _Json) -> None:
        folders = params.get("workspaceFolders") or []
        self._roots = [folder["uri"] for folder in folders]
        if not self._roots and params.get("rootUri"):
            self._roots = [params["rootUri"]]

    def _did_open(self, params: _Json) -> None:
        self._flush()
        opened = params["textDocument"]
        uri = opened["uri"]
        if uri not in self._paths:
            self._paths[uri] = self._new_path(uri)
        path = self._paths[uri]
        if is_secret(path) or is_secret(path_of(uri)):
            return
        fields = {"path": path, "languageId": opened["languageId"], "text": opened["text"]}
        t_ms = self._now_ms()
        self._write(fields | ({"t_ms": t_ms} if t_ms else {}))
        self._open[uri] = self._here = path
        self._cursors[uri] = {"line": 0, "character": 0}

    def _did_close(self, params: _Json) -> None:
        self._flush()
        self._open.pop(params["textDocument"]["uri"], None)

    def _did_change(self, params: _Json) -> None:
        self._flush()
        uri = params["textDocument"]["uri"]
        changes = [_change(change) for change in params["contentChanges"]]
        if uri not in self._open or not changes:
            return
        last = changes[-1]
        if "range" in last:
            self._cursors[uri] = _end_of(last["range"]["start"], last["text"])
        self._pending = (uri, self._event(uri, _kind_of(changes), changes, is_asked=False))

    def _asked(self, params: _Json) -> None:
        uri, cursor = params["textDocument"]["uri"], _position(params["position"])
        if uri not in self._open:
            return
        there, event = self._pending or ("", {})
        if there == uri and not event["request"]:
            event |= {"cursor": cursor, "request": True}
            self._cursors[uri] = cursor
        elif cursor != self._cursors[uri]:
            self._flush()
            self._cursors[uri] = cursor
            self._pending = (uri, self._event(uri, "jump", [], is_asked=True))

    def _ran(self, params: _Json) -> None:
        if params["command"] == ACCEPTED and self._pending is not None:
            self._pending[1]["kind"] = "accept"

    def _shutdown(self, _params: object) -> None:
        self._flush()

    def _event(self, uri: str, kind: str, changes: list[_Json], *, is_asked: bool) -> _Json:
        return {
            "t_ms": self._now_ms(),
            "kind": kind,
            "changes": changes,
            "cursor": self._cursors[uri],
            "request": is_asked,
        }

    def _flush(self) -> None:
        """Write the event that waits, now that something else has come."""
        if self._pending is None:
            return
        (uri, event), self._pending = self._pending, None
        path = self._open[uri]
        self._write(event if path == self._here else {"path": path, **event})
        self._here = path

    def _write(self, fields: _Json) -> None:
        # Half a surrogate pair becomes one question mark, as wide.
        line = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._left_bytes -= len(line)
        if self._left_bytes < 0:
            logger.warning("the recording is full: %s", self.path)
            self._file.close()
            return
        at = self._file.tell()
        try:
            # What a full disk takes of a line is no error.
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            # Half a line would spoil the whole recording.
            self._file.truncate(at)
            raise

    def _end(self) -> None:
        if self._file.closed:
            return
        try:
            self._flush()
        except OSError as error:
            # Whoever reads the messages must learn that they have ended.
            logger.warning("the recording lacks its last event: %s", error)
        self._file.close()

    def _now_ms(self) -> int:
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        return round(1e3 * (now_s - self._began_s))

    def _new_path(self, uri: str) -> str:
        """What a document is called, unlike any other."""
        path = path_in_prompts(uri, self._roots) or "untitled"
        stem, dot, suffix = path.rpartition(".")
        taken = self._paths.values()
        numbered = (f"{stem or suffix}-{n}{dot}{suffix if stem else ''}" for n in count(2))
        return path if path not in taken else next(one for one in numbered if one not in taken)


_HEARD: dict[str, Callable[[Recorder, Any], None]] = {
    "initialize": Recorder._initialize,
    "textDocument/didOpen": Recorder._did_open,
    "textDocument/didChange": Recorder._did_change,
    "textDocument/didClose": Recorder._did_close,
    "textDocument/inlineCompletion": Recorder._asked,
    "workspace/executeCommand": Recorder._ran,
    # After which the process may end at any moment.
    "shutdown": Recorder._shutdown,
}


def _new_file(path: Path) -> tuple[Path, int]:
    """A file that was not there before, and its descriptor."""
    for n in count(1):
        one = path if n == 1 else path.with_stem(f"{path.stem}-{n}")
        try:
            return one, os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")


def _kind_of(changes: list[_Json]) -> str:
    """What somebody did, by what became of the text."""
    written = "".join(change["text"] for change in changes)
    if not written:
        return "delete"
    return "type" if len("".join(written.split())) <= MAX_KEY_CHARS else "paste"


def _end_of(start: _Json, text: str) -> _Json:
    """Where a text ends that begins at a position."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    n_units = len(lines[-1].encode("utf-16-le", "surrogatepass")) // 2
    first = start["character"] if len(lines) == 1 else 0
    return {"line": start["line"] + len(lines) - 1, "character": first + n_units}


def _change(change: _Json) -> _Json:
    if change.get("range") is None:
        return {"text": str(change["text"])}
    range_ = {end: _position(change["range"][end]) for end in ("start", "end")}
    return {"range": range_, "text": str(change["text"])}


def _position(position: _Json) -> _Json:
    return {"line": int(position["line"]), "character": int(position["character"])}
