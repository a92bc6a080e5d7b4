"""Other ways in which an answer could have gone on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
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


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Another way that an answer could have gone, written to its end."""

    draft: Draft
    text: str
    stop: str


def write_alternatives(
    decoder: Decoder,
    draft: Draft,
    request: CompletionRequest,
    rule: StopRule,
    shown: str,
    others: list[Alternative],
    cost: Work,
) -> Generator[None, None, None]:
    """Write other continuations than `shown` into `others`, yielding before each pass.

    They leave the answer at a token of its first line, where the line up to the second best token
    is the most probable, and go on from the state there: nothing is read again. `cost` gets their
    passes.
    """
    seen = {shown}
    for _, n, second in _branch_points(draft)[: 2 * request.n_alternatives]:
        if len(others) == request.n_alternatives:
            return
        limit = n + 1 + request.max_tokens
        branch = yield from _write(decoder, draft, n, second, rule, cost, limit)
        if branch is not None and branch.text not in seen:
            seen.add(branch.text)
            others.append(
                Alternative(text=branch.text, log_prob=branch.draft.log_prob(), stop=branch.stop)
            )


def write_likelier(
    decoder: Decoder,
    draft: Draft,
    rule: StopRule,
    cost: Work,
    limit: int,
    floor: float,
) -> Generator[None, None, Branch | None]:
    """Give another continuation whose first line's log-probability is above `floor`, if there is.

    Token by token the best is not always the most probable line. Tried is the other line that
    could be the most probable, for as long as it can be above and has no more than `limit` tokens,
    those of the held-back text included. Yields before each pass; `cost` gets them.
    """
    points = _branch_points(draft)
    if not points or points[0][0] <= floor:
        return None
    _, n, second = points[0]
    branch = yield from _write(decoder, draft, n, second, rule, cost, limit, floor)
    is_answer = branch is not None and branch.stop != "limit" and branch.text.strip()
    return branch if is_answer else None


def _write(
    decoder: Decoder,
    draft: Draft,
    n: int,
    second: Second,
    rule: StopRule,
    cost: Work,
    limit: int,
    floor: float = -math.inf,
) -> Generator[None, None, Branch | None]:
    """Write what leaves a draft after n tokens, to `limit` in all; None once it is at `floor`."""
    work = Work()
    other = decoder.branch(draft, n, second, work)
    writing = decoder.write(other, raw=False, work=work)
    stop, end = "", rule.end(other.shown)
    while not stop and end is None:
        # Before each pass, for the answer's own last one was just now.
        yield
        n_passes = work.n_passes
        if other.end is not None or next(writing, _ENDED) is _ENDED:
            stop = "eos"
        elif len(other.token_ids) >= limit or rule.is_loop(other.shown):
            stop = "limit"
        end = rule.end(other.shown)
        cost.n_alternative_passes += work.n_passes - n_passes
        if other.log_prob() <= floor:
            return None
    text = rule.unfinished(other.shown) if stop == "limit" else other.shown
    if end is not None:
        stop, text = "block" if rule.is_block(other.shown) else "line", other.shown[:end]
    return Branch(draft=other, text=text, stop=stop)


def _branch_points(draft: Draft) -> list[tuple[float, int, Second]]:
    """Give where the first line could have gone on otherwise, the most probable other first.

    With the log-probability of the line up to there, the other token included: no line that goes
    that way has more.
    """
    n = draft.n_first_line()
    seconds = list(enumerate(draft.seconds[:n]))
    if draft.end is not None and n == len(draft.token_ids):
        seconds.append((n, draft.end[1]))
    before = [0.0, *accumulate(draft.log_probs)]
    points = [(before[i] + second[1], i, second) for i, second in seconds if second is not None]
    return sorted(points, key=lambda point: -point[0])
