"""Other ways in which an answer could have gone on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.decode import Work
from engine.request import Alternative

if TYPE_CHECKING:
    from collections.abc import Generator

    from engine.decode import Decoder
    from engine.draft import Draft, Second
    from engine.request import CompletionRequest
    from engine.stopping import StopRule

_ENDED = object()


def write_alternatives(
    decoder: Decoder,
    draft: Draft,
    request: CompletionRequest,
    rule: StopRule,
    shown: str,
    others: list[Alternative],
    cost: Work,
) -> Generator[None, None, None]:
    """Write other continuations than `shown` into `others`, yielding after each pass.

    They leave the answer at a token of its first line, where the second best was the most
    probable, and go on from the state there: nothing is read again. `cost` gets their passes.
    """
    seen = {shown}
    for n, second in _branch_points(draft)[: 2 * request.n_alternatives]:
        if len(others) == request.n_alternatives:
            return
        work = Work()
        other = decoder.branch(draft, n, second, work)
        writing = decoder.write(other, raw=False, work=work)
        stop, end = "", rule.end(other.shown)
        while not stop and end is None:
            n_passes = work.n_passes
            if other.end is not None or next(writing, _ENDED) is _ENDED:
                stop = "eos"
            elif len(other.token_ids) - n > request.max_tokens or rule.is_loop(other.shown):
                stop = "limit"
            end = rule.end(other.shown)
            cost.n_alternative_passes += work.n_passes - n_passes
            yield
        text = rule.unfinished(other.shown) if stop == "limit" else other.shown
        if end is not None:
            stop, text = "block" if rule.is_block(other.shown) else "line", other.shown[:end]
        if text not in seen:
            seen.add(text)
            others.append(Alternative(text=text, log_prob=other.log_prob(), stop=stop))


def _branch_points(draft: Draft) -> list[tuple[int, Second]]:
    """Give where the first line could have gone on otherwise, the most probable other first."""
    n = draft.n_first_line()
    points = [(i, second) for i, second in enumerate(draft.seconds[:n]) if second is not None]
    if draft.end is not None and draft.end[1] is not None and n == len(draft.token_ids):
        points.append((n, draft.end[1]))
    return sorted(points, key=lambda point: -point[1][1])
