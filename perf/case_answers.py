"""Asks for suggestions at the cursors of cases, by the code that the server runs, and judges them.

Every case is a document of its own that is forgotten afterwards, so that no answer profits from
another's states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from lsp_server.features.inline_completion import N_ALTERNATIVES
from perf.completed_code import CompletedCode, completed_code
from perf.quality import Row, copied, judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from engine.decode import Decoder
    from engine.prompts import Prompt
    from engine.request import CompletionRequest
    from lsp_server.documents import Document, Position
    from lsp_server.settings import Settings
    from lsp_server.suggestions import Suggester, Suggestion
    from perf.cases import Case
    from perf.open_files import OpenFiles
    from perf.trace_format import Trace

PROMPT_KINDS = ("epoch", "bridge", "trunk")
# What can be left out: "project" is what files that are not open say, "distant-text" is all that
# lies outside the windows and may be copied from, "copying" is all copying, from the windows too.
SOURCES = ("outline", "snippets", "project", "distant-text", "copying")
# Of a prompt, read at a time: nothing here waits for a pass to end. The server's 25 ms were 32 on
# a busy machine, and a case took 416 ms of processor time instead of 261.
CHUNK_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Way:
    """How cases are asked for."""

    prompt_kind: str = "epoch"
    """What all answers are computed from: one of `PROMPT_KINDS`."""
    explicit: bool = True
    """False: as an editor asks by itself, so that what keeps such suggestions back does so."""
    deadline_ms: float | None = None


async def evaluate(
    cases: Iterable[Case],
    suggester: Suggester,
    way: Way | None = None,
    open_files: OpenFiles | None = None,
) -> list[Row]:
    """Ask for a suggestion at each case's cursor and judge it; a row each, in their order.

    The suggester's `min_confidence` must be 0: what a threshold hides is told from the rows.
    Raises ValueError where an answer fails.
    """
    answers = suggestions_at(cases, suggester, way or Way(), open_files)
    return [_row(case, document, suggestion) async for case, document, suggestion in answers]


async def suggestions_at(
    cases: Iterable[Case],
    suggester: Suggester,
    way: Way,
    open_files: OpenFiles | None = None,
) -> AsyncIterator[tuple[Case, Document, Suggestion]]:
    """Ask at each case's cursor, each document forgotten before the next.

    Raises ValueError where an answer fails.
    """
    answer_from(suggester, way.prompt_kind)
    for number, case in enumerate(cases):
        document = case.open(f"file:///case-{number}/{case.path}")
        others = open_files.beside(case.path) if open_files is not None else []
        suggester.documents = [document, *others]
        # Each time, because the engine's thread chooses for itself while it warms up.
        decoder = suggester.engine.decoder
        decoder.chunk_tokens = max(decoder.chunk_tokens, CHUNK_TOKENS)
        suggestion = await suggester.suggest(
            document,
            document.position_at(len(case.prefix)),
            explicit=way.explicit,
            deadline_ms=way.deadline_ms,
            n_alternatives=N_ALTERNATIVES if way.explicit else 0,
        )
        suggester.forget(document.uri)
        if suggestion.completion.stop == "error":
            raise ValueError(f"case {number + 1} failed; the log above says why")
        yield case, document, suggestion


def answer_from(suggester: Suggester, prompt_kind: str) -> None:
    """Have all answers computed from one kind of prompt, whatever states are at hand.

    Raises ValueError for a kind that there is not, or that the model was not trained in.
    """
    # Imports torch.
    from engine.prompts import Prompts

    if prompt_kind not in PROMPT_KINDS:
        raise ValueError(f"prompt kind is {prompt_kind!r}, expected {', '.join(PROMPT_KINDS)}")
    prompts = suggester.engine._completer.prompts
    if prompt_kind == "bridge" and not prompts.fim.bridge("x"):
        raise ValueError(f"{suggester.name} knows no bridge prompts, expected epoch or trunk")
    chooser = Prompts(prompts.fim, prompts.epochs, cast("Decoder", _TrunkAtHand()))

    def choose(request: CompletionRequest, *, exact: bool) -> Prompt:
        # There is nothing to bridge to where nothing stands after the cursor.
        asked = replace(request, suffix="") if prompt_kind == "trunk" else request
        return chooser.choose(asked, exact=prompt_kind == "epoch")

    prompts.choose = choose  # type: ignore[method-assign]


class _TrunkAtHand:
    """As much of a decoder as the choice of a prompt asks for: one that has read the trunk."""

    def n_missing(self, ids: object, owner: tuple[str, object]) -> int:
        return 0 if owner[1] == "trunk" else 1_000_000


def shown_text(suggestion: Suggestion, threshold: float = 0.0) -> str:
    """The text that a user sees, "" for none, where suggestions need this much confidence."""
    is_shown = suggestion.items and confidence_of(suggestion) >= threshold
    return suggestion.items[0].insert_text if is_shown else ""


def confidence_of(suggestion: Suggestion) -> float:
    """How probable the model holds its text to be, 0 to 1: what `min_confidence` is held to."""
    best = suggestion.items[0] if suggestion.items else suggestion.completion
    return math.exp(min(best.log_prob, 0.0))


def _row(case: Case, document: Document, suggestion: Suggestion) -> Row:
    text, copy = shown_text(suggestion), copied(case.prefix)
    model = judge(case, text, document)
    return Row(
        kind=case.kind,
        language_id=case.language_id,
        multiline=case.multiline,
        model=model,
        copy=model if copy == text else judge(case, copy, document),
        confidence=confidence_of(suggestion),
        hidden=suggestion.hidden,
        latency_ms=suggestion.timings_ms["total"],
    )


def asking(
    suggester: Suggester, way: Way, threshold: float
) -> Callable[[Document, Position], Awaitable[str]]:
    """Asks for what is shown, for `completed_code`."""

    async def ask(document: Document, position: Position) -> str:
        suggestion = await suggester.suggest(
            document, position, explicit=way.explicit, deadline_ms=way.deadline_ms
        )
        return shown_text(suggestion, threshold)

    return ask


async def completed_in(
    traces: Iterable[Trace], suggester: Suggester, way: Way, threshold: float
) -> CompletedCode:
    """What suggestions of this confidence would have written of the code typed in traces."""
    total = CompletedCode()
    for trace in traces:
        suggester.documents = ()
        total += await completed_code(trace, asking(suggester, way, threshold))
        suggester.forget(trace.open().uri)
    return total


def suggester_that_shows_all(
    settings: Settings, without: Iterable[str] = (), also: Iterable[str] = ()
) -> Suggester:
    """The server's own, but that hides nothing for lack of confidence; takes seconds.

    `without` names what context to leave out: see `SOURCES`; `also` what to use although the model
    is said to gain nothing from it.
    """
    from lsp_server.suggestions import Suggester, sources_for
    from lsp_server.surroundings import ContextSources, Surroundings

    left_out = set(without)
    if left_out - set(SOURCES):
        raise ValueError(f"{sorted(left_out)} to leave out, expected some of {', '.join(SOURCES)}")
    suggester = Suggester.load(replace(settings, min_confidence=0.0))
    chosen = sources_for(suggester.engine.declaration)
    added = set(also)
    context = ContextSources(
        outline=(chosen.outline or "outline" in added) and "outline" not in left_out,
        snippets=(chosen.snippets or "snippets" in added) and "snippets" not in left_out,
        copying=left_out.isdisjoint({"distant-text", "copying"}),
    )
    # The files of a workspace need not lie where git could tell which of them it ignores.
    suggester.surroundings = Surroundings(context, lambda uri: False)
    if "copying" in left_out:
        suggester.engine.copy_weights = suggester.engine.decoder.copy_weights = None
    return suggester
