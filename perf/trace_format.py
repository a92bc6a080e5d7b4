"""Keystroke traces: an editing session as JSON lines, the opened text first, then one event each.

Positions are LSP's; an event's changes apply one after the other, as in `textDocument/didChange`.
A session of several documents has a line for each where it is opened, perhaps once more with
another text, and all times count from the first one. An event belongs to the document that the
line before it is about, unless it names another `path`. Where an event has no `next`, that is
found out from what comes after it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lsp_server.documents import Change, Document, Position
from perf.json_objects import checked, field, read_objects
from perf.typed_next import typed_next
from perf.whole_file import write_whole

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


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A document that the user opens, or opens again."""

    path: str
    language_id: str
    text: str
    t_ms: int = 0
    """Since the first document was opened."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """Something that the user did in one of the open documents."""

    path: str
    event: Event
    """Its `t_ms` counts from the first document's opening."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a person did in one or more documents, in order."""

    name: str
    steps: tuple[Opened | Done, ...]

    @classmethod
    def of(cls, name: str, *traces: Trace) -> Session:
        """One document after the other."""
        steps: list[Opened | Done] = []
        start_ms = 0
        for trace in traces:
            fields = {"path": trace.path, "language_id": trace.language_id, "text": trace.text}
            steps.append(Opened(**fields, t_ms=start_ms))
            for event in trace.events:
                moved = replace(event, t_ms=start_ms + event.t_ms)
                steps.append(Done(path=trace.path, event=moved))
            start_ms += trace.events[-1].t_ms if trace.events else 0
        return cls(name=name, steps=tuple(steps))

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, whatever their document."""
        return tuple(step.event for step in self.steps if isinstance(step, Done))

    @property
    def traces(self) -> tuple[Trace, ...]:
        """A trace for each time a document was opened; times as they are in the session."""
        open_now: dict[str, int] = {}
        found: list[tuple[Opened, list[Event]]] = []
        for step in self.steps:
            if isinstance(step, Opened):
                open_now[step.path] = len(found)
                found.append((step, []))
            else:
                found[open_now[step.path]][1].append(step.event)
        return tuple(
            Trace(
                path=opened.path,
                language_id=opened.language_id,
                text=opened.text,
                events=tuple(events),
            )
            for opened, events in found
        )


def read_trace(path: Path) -> Trace:
    """Read a trace of one document; raises ValueError that names the line for what is not one."""
    session = read_session(path)
    if len(session.traces) != 1:
        raise ValueError(f"{path} opens {len(session.traces)} documents, expected one")
    return session.traces[0]


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace where `read_trace` finds it equal."""
    write_session(Session.of(path.stem, trace), path)


def read_session(path: Path) -> Session:
    """Read a session, named as its file; ValueError that names the line for what is not one."""
    steps: list[Opened | Done] = []
    open_paths: set[str] = set()
    unknown: set[int] = set()

    def step_of(fields: dict[str, Any]) -> Opened | Done:
        if not steps or "languageId" in fields:
            opened = _opened(fields)
            open_paths.add(opened.path)
            return opened
        where = field(fields, "path", str, steps[-1].path)
        if where not in open_paths:
            raise ValueError(f"{where!r} is not open")
        if fields.get("next") is None:
            unknown.add(len(steps))
        return Done(path=where, event=_event(fields))

    # One after the other: each is read knowing those before it.
    for step in read_objects(path, step_of, "a trace's line"):
        steps.append(step)
    if not steps:
        raise ValueError(f"{path} is empty, expected a trace")
    return Session(name=path.stem, steps=_with_next(steps, unknown))


def write_session(session: Session, path: Path) -> None:
    """Write a session where `read_session` finds it equal."""
    write_whole(path, session_text(session))


def session_text(session: Session) -> str:
    """What a session's file holds."""
    objects = []
    here = ""
    for step in session.steps:
        if isinstance(step, Opened):
            fields = {"path": step.path, "languageId": step.language_id, "text": step.text}
            objects.append(fields | ({"t_ms": step.t_ms} if step.t_ms else {}))
        else:
            named = {} if step.path == here else {"path": step.path}
            objects.append(named | _to_json(step.event))
        here = step.path
    return "".join(json.dumps(fields, ensure_ascii=False) + "\n" for fields in objects)


def _with_next(steps: list[Opened | Done], unknown: set[int]) -> tuple[Opened | Done, ...]:
    """The steps, with what comes next where it is unknown."""
    # From the last one back: each goes on with what the one behind it in its document knows.
    behind: dict[str, Event] = {}
    for at in reversed(range(len(steps))):
        step = steps[at]
        if isinstance(step, Opened):
            behind.pop(step.path, None)
            continue
        then = behind.get(step.path)
        if at in unknown and then is not None:
            event = replace(step.event, next=typed_next(step.event, then))
            steps[at] = step = replace(step, event=event)
        behind[step.path] = step.event
    return tuple(steps)


def _opened(fields: dict[str, Any]) -> Opened:
    opened = Opened(
        path=field(fields, "path", str),
        language_id=field(fields, "languageId", str),
        text=field(fields, "text", str),
        t_ms=field(fields, "t_ms", int, 0),
    )
    if "\0" in opened.path:
        raise ValueError(f"path is {opened.path!r}, expected one without NUL")
    return opened


def _event(fields: dict[str, Any]) -> Event:
    kind = field(fields, "kind", str)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    return Event(
        t_ms=field(fields, "t_ms", int),
        kind=kind,
        changes=tuple(map(_change, field(fields, "changes", list))),
        cursor=_position(fields, "cursor"),
        request=field(fields, "request", bool),
        next=field(fields, "next", str, ""),
    )


def _change(change: Any) -> Change:
    fields = checked(change, dict, "a change")
    text = field(fields, "text", str)
    if fields.get("range") is None:
        return Change(text=text)
    range_ = field(fields, "range", dict)
    return Change(text=text, range=(_position(range_, "start"), _position(range_, "end")))


def _position(fields: dict[str, Any], name: str) -> Position:
    position = field(fields, name, dict)
    return Position(field(position, "line", int), field(position, "character", int))


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
