"""What was measured of one request, and of a whole run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["items", "empty", "null", "cancelled", "error", "timeout"]
# What nobody was to see, or what went wrong, has no latency worth counting.
ANSWERED = ("items", "empty", "null")


@dataclass(kw_only=True)
class Sample:
    """One request: what caused it, what became of it and what it took. All times from outside."""

    trace: str
    kind: str
    """Of the event, see `trace_format.KINDS`."""
    n_chars: int
    """Of the document."""
    start_ms: float
    """When the change was written (the request, where there was none), since the run began."""
    id: int = 0
    outcome: Outcome = "error"
    problem: str | None = None
    """What an error says."""
    latency_ms: float = 0.0
    """From the request written to the answer read."""
    change_ms: float | None = None
    """From the change written to the answer read; None for an event without a change."""
    suggested_chars: int = 0
    first_line: bool | None = None
    """Whether the first line is what the user typed; None where nothing was typed there."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """As our own server tells, with "transport" for what is left of `latency_ms`; else empty."""
    prompt_kind: str | None = None
    stop: str | None = None
    n_prompt: int | None = None
    n_recomputed: int | None = None
    n_generated: int | None = None
    n_passes: int | None = None

    @property
    def is_answered(self) -> bool:
        return self.outcome in ANSWERED

    def take(self, answer: dict[str, Any]) -> None:
        """Take what `keystate/lastTimings` says of this request.

        Its stages have no gaps between them, so what they lack of the latency was spent outside:
        in the pipes, in the server's reader, in this process. Of the writing, what goes on while
        the answer is being read does not count.
        """
        self.stop = answer["stop"]
        if self.stop == "error":
            # Answered with nothing to suggest.
            self.outcome, self.problem = "error", "it failed inside; the server's log says why"
        self.prompt_kind = answer.get("prompt_kind")
        tokens, passes = answer.get("tokens", {}), answer.get("passes", {})
        self.n_prompt, self.n_recomputed = tokens.get("prompt"), tokens.get("recomputed")
        self.n_generated = tokens.get("generated")
        self.n_passes = sum(passes.values()) if passes else None
        stages = {name: ms for name, ms in answer["timings_ms"].items() if name != "total"}
        outside_ms = self.latency_ms - sum(stages.values())
        if "serialize" in stages:
            stages["serialize"] += min(0.0, outside_ms)
        self.stages_ms = {"transport": max(0.0, outside_ms), **stages}

    def to_json(self) -> dict[str, Any]:
        """As the summary's `samples` have it: without what is not known, times to the µs."""
        fields = {key: value for key, value in asdict(self).items() if value not in (None, {})}
        del fields["id"]
        for name in ("start_ms", "latency_ms", "change_ms"):
            if name in fields:
                fields[name] = round(fields[name], 3)
        if self.stages_ms:
            fields["stages_ms"] = {name: round(ms, 3) for name, ms in self.stages_ms.items()}
        return fields


@dataclass(kw_only=True)
class Run:
    """All that was measured while traces were replayed."""

    command: str
    speed: str
    server: str | None = None
    """Its name and version, as it says."""
    model: str | None = None
    device: str | None = None
    start_to_ready_s: float = 0.0
    """From the process' start to the first answer that a model was asked for."""
    start_to_suggestion_s: float | None = None
    """The same to the first one with something to suggest."""
    seconds: float = 0.0
    """Of the replay itself."""
    samples: list[Sample] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Resident bytes at times in seconds since the replay began."""
    processor: list[tuple[float, float]] = field(default_factory=list)
    """Seconds of processor time used so far, at such times."""
    cpu_s: float | None = None
    n_typed_chars: int = 0
    n_completed_chars: int = 0
    n_unasked: int = 0
    """Events overtaken by the next one before their request was due."""
    problem: str | None = None
    """Why it ended early."""
    counters: dict[str, int] = field(default_factory=dict)
    """What our own server's counters grew by."""
