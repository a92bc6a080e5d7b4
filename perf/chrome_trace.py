"""A profile as a trace for Perfetto or chrome://tracing.

The format is Chrome's "Trace Event Format", JSON object form: complete events (X), instants (i),
counters (C) and metadata (M), times in microseconds.
"""

from __future__ import annotations

from typing import Any

CLIENT, SERVER = 1, 2
KEYS_TID, FIRST_LANE_TID = 1, 10


def chrome_trace(figures: dict[str, Any]) -> dict[str, Any]:
    """The trace of a profile's summary: keystrokes, requests, their stages, and memory.

    When a stage began is not known from outside; they are laid end to end in a request's order,
    with half of the transport in front.
    """
    events = [
        _named(CLIENT, None, "process_name", "the editor"),
        _named(SERVER, None, "process_name", figures["server"] or "the server"),
        _named(CLIENT, KEYS_TID, "thread_name", "events"),
    ]
    # Requests that overlap go on lanes of their own: complete events of a thread must nest.
    free_us: list[float] = []
    for sample in figures["samples"]:
        changed_us = 1e3 * sample["start_ms"]
        waited_ms = sample.get("change_ms", sample["latency_ms"]) - sample["latency_ms"]
        start_us = changed_us + 1e3 * max(0.0, waited_ms)
        end_us = start_us + 1e3 * sample["latency_ms"]
        events.append(_instant(sample, changed_us))
        lane = next((n for n, free in enumerate(free_us) if free <= start_us), len(free_us))
        if lane == len(free_us):
            free_us.append(0.0)
            for process in (CLIENT, SERVER):
                name = "requests" if process == CLIENT else "answers"
                events.append(_named(process, FIRST_LANE_TID + lane, "thread_name", name))
        free_us[lane] = end_us
        events.append(_request(sample, start_us, FIRST_LANE_TID + lane))
        events += _stages(sample, start_us, FIRST_LANE_TID + lane)
    for at_s, n_bytes in figures["memory"]:
        events.append(
            {
                "name": "resident memory",
                "ph": "C",
                "ts": round(1e6 * at_s, 3),
                "pid": SERVER,
                "args": {"MiB": round(n_bytes / 2**20, 2)},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _named(process: int, thread: int | None, what: str, name: str) -> dict[str, Any]:
    place = {"pid": process} if thread is None else {"pid": process, "tid": thread}
    return {"name": what, "ph": "M", "ts": 0, **place, "args": {"name": name}}


def _instant(sample: dict[str, Any], at_us: float) -> dict[str, Any]:
    return {
        "name": sample["kind"],
        "cat": "event",
        "ph": "i",
        "s": "t",
        "ts": round(at_us, 3),
        "pid": CLIENT,
        "tid": KEYS_TID,
        "args": {"trace": sample["trace"], "document_chars": sample["n_chars"]},
    }


def _request(sample: dict[str, Any], start_us: float, thread: int) -> dict[str, Any]:
    known = ("trace", "kind", "outcome", "prompt_kind", "stop", "n_prompt", "n_recomputed")
    args = {key: sample[key] for key in (*known, "n_generated", "n_passes") if key in sample}
    return {
        "name": sample["outcome"],
        "cat": "request",
        "ph": "X",
        "ts": round(start_us, 3),
        "dur": round(1e3 * sample["latency_ms"], 3),
        "pid": CLIENT,
        "tid": thread,
        "args": args,
    }


def _stages(sample: dict[str, Any], at_us: float, thread: int) -> list[dict[str, Any]]:
    stages = dict(sample.get("stages_ms", {}))
    at_us += 1e3 * stages.pop("transport", 0.0) / 2
    events = []
    for name, ms in stages.items():
        events.append(
            {
                "name": name,
                "cat": "stage",
                "ph": "X",
                "ts": round(at_us, 3),
                "dur": round(1e3 * ms, 3),
                "pid": SERVER,
                "tid": thread,
                "args": {},
            }
        )
        at_us += 1e3 * ms
    return events
