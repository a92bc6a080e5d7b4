"""Keystroke traces: an editing session as JSON lines, the opened text first, then one event each.

Positions are LSP's; an event's changes apply one after the other, as in `textDocument/didChange`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Change, Document, Position

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("type", "delete", "jump", "paste", "accept", "undo")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something the user did, and where the cursor then stood."""

    t_ms: int
    """Since the document was opened."""
    kind: str
    """One of `KINDS`; a jump moves the cursor and has no changes."""
    changes: tuple[Change, ...] = ()
    cursor: Position
    request: bool = True
    """Whether an editor asks for a suggestion after it."""
    next: str = ""
    """What the user then typed right here; empty where something else came first."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A document as it was opened, and what was then done to it."""

    path: str
    language_id: str
    text: str
    events: tuple[Event, ...]

    def open(self) -> Document:
        """The document before the first event."""
        return Document(f"file:///{self.path}", self.language_id, 0, self.text, path=self.path)


def read_trace(path: Path) -> Trace:
    """Read a trace; raises ValueError that names the line for what is not one."""
    # Not splitlines(): a line separator may stand within the recorded text.
    lines = path.read_text(encoding="utf-8").split("\n")
    opened: dict[str, Any] = {}
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if opened:
                events.append(_event(fields))
            else:
                opened = {key: fields[key] for key in ("path", "languageId", "text")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a trace's line: {error!r}") from error
    if not opened:
        raise ValueError(f"{path} is empty, expected a trace")
    return Trace(
        path=opened["path"],
        language_id=opened["languageId"],
        text=opened["text"],
        events=tuple(events),
    )


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace where `read_trace` finds it equal."""
    opened = {"path": trace.path, "languageId": trace.language_id, "text": trace.text}
    objects = [opened, *map(_to_json, trace.events)]
    lines = [json.dumps(fields, ensure_ascii=False) + "\n" for fields in objects]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _event(fields: dict[str, Any]) -> Event:
    if fields["kind"] not in KINDS:
        raise ValueError(f"kind is {fields['kind']!r}, expected one of {', '.join(KINDS)}")
    return Event(
        t_ms=fields["t_ms"],
        kind=fields["kind"],
        changes=tuple(map(_change, fields["changes"])),
        cursor=_position(fields["cursor"]),
        request=fields["request"],
        next=fields["next"],
    )


def _change(fields: dict[str, Any]) -> Change:
    range_ = fields.get("range")
    if range_ is None:
        return Change(text=fields["text"])
    return Change(text=fields["text"], range=(_position(range_["start"]), _position(range_["end"])))


def _position(fields: dict[str, int]) -> Position:
    return Position(fields["line"], fields["character"])


def _to_json(event: Event) -> dict[str, Any]:
    changes = []
    for change in event.changes:
        fields: dict[str, Any] = {"text": change.text}
        if change.range is not None:
            start, end = change.range
            fields = {"range": {"start": start._asdict(), "end": end._asdict()}, **fields}
        changes.append(fields)
    return {
        "t_ms": event.t_ms,
        "kind": event.kind,
        "changes": changes,
        "cursor": event.cursor._asdict(),
        "request": event.request,
        "next": event.next,
    }
