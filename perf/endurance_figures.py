"""What a long replay tells: how memory grew, and whether answers became slower or dearer."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.percentiles import middle_95, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from perf.profile_sample import Run, Sample

SLICE_S = 300.0
# Of the memory's curve, what is kept.
KEPT_EVERY_S = 10.0
N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio, and where it lies at 95 %."""

    ratio: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether it may as well be 1."""
        return self.low <= 1.0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Play:
    """One replay of a session, and what came of it."""

    name: str
    """The same for each replay of the session that should cost the same."""
    start_s: float
    end_s: float
    samples: Sequence[Sample]


def plays_of(run: Run, name_of: Callable[[str], str]) -> list[Play]:
    """A run's sessions in order; `name_of` gives a session's name without its number."""
    parts = [list(samples) for _, samples in groupby(run.samples, key=lambda s: s.trace)]
    starts_s = [samples[0].start_ms / 1e3 for samples in parts] + [run.seconds]
    return [
        Play(name=name_of(samples[0].trace), start_s=start_s, end_s=end_s, samples=samples)
        for samples, (start_s, end_s) in zip(parts, pairwise(starts_s), strict=True)
    ]


def figures(run: Run, plays: Sequence[Play]) -> dict[str, Any]:
    """The figures of a run from the first of these plays on, which begin behind the warm-up.

    `memory` compares the medians of resident bytes in the last and the second tenth of the time.
    Under `drift`, ratios of the last third to the first: of latencies, and of the processor time
    that the server and all it started used, which other work on the machine hardly touches.
    """
    start_s = plays[0].start_s
    samples = [sample for play in plays for sample in play.samples]
    answered = [sample for sample in samples if sample.is_answered]
    outcomes = Counter(sample.outcome for sample in samples)
    memory = [(at_s - start_s, n_bytes) for at_s, n_bytes in run.memory if at_s >= start_s]
    return {
        "seconds": run.seconds - start_s,
        "requests": len(samples),
        "outcomes": dict(outcomes),
        "errors": outcomes["error"] + outcomes["timeout"],
        "error_messages": dict(Counter(s.problem for s in run.samples if s.problem)),
        "suggested": sum(sample.suggested_chars > 0 for sample in answered),
        "latency_ms": percentiles([sample.latency_ms for sample in answered]),
        "memory": growth(memory),
        "drift": {
            "latency": _told(last_to_first(latency_blocks(plays))),
            "processor_time": _told(last_to_first(processor_blocks(plays, run.processor))),
        },
        "slices": slices(answered, start_s, run.seconds),
        "rss_bytes": [[round(at_s, 1), n_bytes] for at_s, n_bytes in _thinned(memory)],
        "counters": run.counters,
        "problem": run.problem,
    }


def growth(memory: Sequence[tuple[float, int]]) -> dict[str, float]:
    """How resident bytes at times in seconds grew, from the second tenth of them to the last."""
    if not memory:
        raise ValueError("there are no bytes at any time: the platform does not tell them")
    end_s = memory[-1][0]

    def median(tenth: int) -> float:
        start = end_s * tenth / 10
        return statistics.median(n for at_s, n in memory if start <= at_s <= start + end_s / 10)

    second, last = median(1), median(9)
    highest = max(n_bytes for _, n_bytes in memory)
    return {
        "second_tenth_bytes": second,
        "last_tenth_bytes": last,
        "max_bytes": highest,
        "growth": last / second - 1,
    }


def latency_blocks(plays: Sequence[Play]) -> list[tuple[float, list[float]]]:
    """For each play its time and, of each answer, the log of what it took against its likes.

    Its likes are the answers to the same event in the other replays: the sessions' own differences
    say nothing about time.
    """
    return _against_likes(
        (
            play.start_s,
            [
                ((play.name, sample.kind, sample.n_chars), sample.latency_ms)
                for sample in play.samples
                if sample.is_answered
            ],
        )
        for play in plays
    )


def processor_blocks(
    plays: Sequence[Play], processor: Sequence[tuple[float, float]]
) -> list[tuple[float, list[float]]]:
    """The same of the processor time of each play; `processor` has seconds used by times."""
    times_s, used_s = np.array(processor, dtype=float).reshape(-1, 2).T
    if not len(times_s):
        return []
    starts_s, ends_s = (
        np.array([getattr(play, at) for play in plays]) for at in ("start_s", "end_s")
    )
    spent_s = np.interp(ends_s, times_s, used_s) - np.interp(starts_s, times_s, used_s)
    return _against_likes(
        (play.start_s, [(play.name, float(seconds))])
        for play, seconds in zip(plays, spent_s, strict=True)
    )


def last_to_first(blocks: Sequence[tuple[float, Sequence[float]]]) -> Ratio | None:
    """The last third against the first, of logs in blocks at times; None for fewer than 6 blocks.

    The interval is that of a bootstrap of whole blocks: what slows an answer slows its neighbours.
    """
    ordered = [np.array(logs) for _, logs in sorted(blocks, key=lambda block: block[0]) if logs]
    n = len(ordered) // 3
    if n < 2:
        return None
    dice = np.random.default_rng(0)
    first, last = ordered[:n], ordered[-n:]
    ratios = [
        np.median(np.concatenate([last[i] for i in dice.integers(0, n, n)]))
        - np.median(np.concatenate([first[i] for i in dice.integers(0, n, n)]))
        for _ in range(N_RESAMPLES)
    ]
    low, high = middle_95(ratios)
    found = np.median(np.concatenate(last)) - np.median(np.concatenate(first))
    return Ratio(ratio=math.exp(found), low=math.exp(low), high=math.exp(high))


def slices(answered: Sequence[Sample], start_s: float, end_s: float) -> list[dict[str, float]]:
    """The latency of each five minutes, as it was; the last slice has what is left."""
    found = []
    n_slices = max(1, int((end_s - start_s) / SLICE_S))
    for number in range(n_slices):
        from_s = start_s + number * SLICE_S
        to_s = from_s + SLICE_S if number + 1 < n_slices else end_s
        ms = [s.latency_ms for s in answered if from_s <= s.start_ms / 1e3 <= to_s]
        if ms:
            ranks = percentiles(ms)
            at = {"minute": number * SLICE_S / 60, "answers": len(ms)}
            found.append({**at, **{name: ranks[name] for name in ("p50", "p95")}})
    return found


def _against_likes(
    blocks: Iterable[tuple[float, list[tuple[Hashable, float]]]],
) -> list[tuple[float, list[float]]]:
    """Logs of values against the median of all with the same key; zeros are left out."""
    known = [(at_s, [(key, value) for key, value in block if value > 0]) for at_s, block in blocks]
    likes: dict[Hashable, list[float]] = defaultdict(list)
    for _, block in known:
        for key, value in block:
            likes[key].append(value)
    medians = {key: statistics.median(values) for key, values in likes.items()}
    return [
        (at_s, [math.log(value / medians[key]) for key, value in block]) for at_s, block in known
    ]


def _told(ratio: Ratio | None) -> dict[str, Any] | None:
    return None if ratio is None else {**asdict(ratio), "is_noise": ratio.is_noise}


def _thinned(memory: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """The last one of each ten seconds."""
    by_part = {int(at_s // KEPT_EVERY_S): (at_s, n_bytes) for at_s, n_bytes in memory}
    return list(by_part.values())
