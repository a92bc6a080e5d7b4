"""The comparison with peers as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perf.peers.peer_run import (
    KEYSTATE,
    KEYSTATE_INT8,
    LLAMA_F32,
    LLAMA_INFILL,
    LLAMA_Q8_0,
    PEERS,
    UNASKED,
    UNCACHED,
    WHOLE_PROMPTS,
)
from perf.peers.scenario import APPEND, KINDS, NEW_PLACE
from perf.peers.worker import LINE, ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

# Where the ratios are looked at.
RATIO_TOKENS = 8_000
# Given keystate's prompts; only these are comparable keystroke by keystroke.
GIVEN_PROMPTS = (LLAMA_Q8_0, LLAMA_F32)
LLAMAS = (*GIVEN_PROMPTS, LLAMA_INFILL)
EXACT = (KEYSTATE, KEYSTATE_INT8)


def markdown(report: dict[str, Any]) -> str:
    """Write a report's tables; those whose parts were not measured are left out."""
    lengths = sorted(report["lengths"], key=int)
    at = str(RATIO_TOKENS) if str(RATIO_TOKENS) in lengths else (lengths or ["0"])[-1]
    parts = [_head(report)]
    if lengths:
        here = f"at {int(at):,} tokens"
        sections = {
            f"A keystroke to the first token, {here}": _kinds(report, at, ONE),
            f"A keystroke to a line, {here}": _kinds(report, at, LINE),
            f"Tokens of the prompt read again, {here}": _recomputed(report, at),
            "Against the document's length": _by_length(report, lengths),
            "The first keystroke at a new place": _new_place(report, lengths),
            "Memory": _memory(report, lengths),
        }
        parts += [f"## {title}\n\n{table}" for title, table in sections.items()]
    if "typing" in report:
        parts.append(f"## What typing costs\n\n{_typing(report)}")
    if "start_s" in report:
        parts.append(f"## From the process's start to the first suggestion\n\n{_start(report)}")
    return "\n".join(parts)


def total_ms(report: dict[str, Any], length: str, want: str, peer: str, kind: str) -> float | None:
    """Give the median ms of a kind: of keystate, with the language server's own share added."""
    found = _kind(report, length, want, peer, kind)
    if found is None:
        return None
    ms: float = found["first_ms" if want == ONE else "ms"]
    if peer in (*EXACT, UNASKED, UNCACHED):
        ms += report["lengths"][length]["server_share_ms"]
    return ms


def ratio(report: dict[str, Any], length: str, want: str, peer: str, kind: str) -> float | None:
    """Give how many times longer a peer takes than keystate."""
    theirs, ours = (total_ms(report, length, want, each, kind) for each in (peer, KEYSTATE))
    return None if theirs is None or ours is None else theirs / ours


def _head(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        "# keystate beside its peers\n",
        f"{report['date']}, {report['machine']}, {report['threads']} threads for each. {versions}."
        f" Model: {report['model']}. The same weights everywhere, `keystate export --gguf` for"
        " llama.cpp; greedy; nothing is copied; no window is in force.\n",
        "Every peer is a process of its own and is timed from outside, from bytes written to bytes"
        " read: llama.cpp's server over HTTP on the loopback (one slot, prompt cache on, its other"
        " options as they are by default), keystate's engine and transformers over a pipe. What"
        " the language server adds (reading the message, parse, context, answering; measured on"
        " `keystate serve` over stdio) is **added to keystate's figures**. All are given the same"
        " ids: `<s>[SUFFIX]suffix[PREFIX]prefix` with the whole document, as keystate answered"
        " from it, the tokens that spell held-back text included. Only llama.cpp's `/infill`, which"
        " its editor plugins use, builds its prompt itself: with `--spm-infill` in the same order,"
        " but with the middle's token at the end, and from at most 1,536 tokens before the cursor"
        " and 511 behind it. Its answers are other ones and are not compared; that token moves with"
        " every keystroke, and a recurrent state cannot step back over it. The 40 characters that"
        " are deleted stood there before; nothing of them was typed.\n",
    ]
    same = report.get("equality")
    if same:
        lines.append(
            f"Checked first: {same['texts']} texts, {same['texts_differing']} with other token ids"
            f" in llama.cpp; {same['prompts']} prompts, {same['prompts_other_best']} with another"
            " best next token, log-probabilities at most"
            f" {same['max_log_prob_difference']:.1e} apart (F32).\n"
        )
    counts = _agreements(report)
    if counts:
        lines.append(f"Answers compared in this run:\n\n{counts}")
    lines += [f"{line}\n" for line in report.get("skipped", ())]
    return "\n".join(lines)


def _agreements(report: dict[str, Any]) -> str:
    rows = []
    for peer in PEERS:
        counts: dict[str, int] = {}
        for unit in report["lengths"].values():
            for want in (ONE, LINE):
                summary = unit.get(want, {}).get(peer, {})
                for name, n in summary.get("agreement", {}).items():
                    counts[name] = counts.get(name, 0) + n
        if counts and peer != KEYSTATE:
            names = ("asked", "equal", "ties", "different")
            rows.append([peer, *(f"{counts[name]:,}" for name in names)])
    head = ["", "answers", "the same ids", "ties of two logits", "other ids"]
    return _table(head, rows) if rows else ""


def _kinds(report: dict[str, Any], length: str, want: str) -> str:
    peers = [peer for peer in PEERS if _has(report, length, want, peer) and peer != UNASKED]
    llamas = [peer for peer in GIVEN_PROMPTS if peer in peers]
    rows = []
    for kind in KINDS:
        figures = [total_ms(report, length, want, peer, kind) for peer in peers]
        # One keystroke is as good as another where the whole prompt is read.
        figures = [
            total_ms(report, length, want, peer, APPEND)
            if ms is None and peer in WHOLE_PROMPTS
            else ms
            for peer, ms in zip(peers, figures, strict=True)
        ]
        cells = [
            _with_longest(ms, _kind(report, length, want, peer, kind)) if want == ONE else _ms(ms)
            for peer, ms in zip(peers, figures, strict=True)
        ]
        ratios = [ratio(report, length, want, peer, kind) for peer in llamas]
        rows.append([kind, *cells, *map(_times, ratios)])
    said = "ms, median (longest)" if want == ONE else "ms, median"
    head = [said, *peers, *(f"{peer} ÷ keystate" for peer in llamas)]
    share = report["lengths"][length]["server_share_ms"]
    return f"{_table(head, rows)}\nOf keystate's, {share:.1f} ms are the language server's.\n"


def _recomputed(report: dict[str, Any], length: str) -> str:
    peers = [
        peer
        for peer in (KEYSTATE, *LLAMAS)
        if _has(report, length, ONE, peer) and _has(report, length, LINE, peer)
    ]
    rows = []
    for kind in KINDS:
        cells = []
        for peer in peers:
            for want in (ONE, LINE):
                found = _kind(report, length, want, peer, kind)
                cells.append("–" if found is None else f"{found['recomputed']:,.0f}")
        rows.append([kind, *cells])
    head = ["", *(f"{peer}, {want}" for peer in peers for want in ("one token", "a line"))]
    return _table(head, rows)


def _by_length(report: dict[str, Any], lengths: Sequence[str]) -> str:
    rows = []
    for kind in KINDS:
        for peer in (KEYSTATE, KEYSTATE_INT8, *LLAMAS):
            cells = [_ms(total_ms(report, length, ONE, peer, kind)) for length in lengths]
            if set(cells) != {"–"}:
                rows.append([kind, peer, *cells])
    head = ["to the first token, ms", "", *(f"{int(length):,} tokens" for length in lengths)]
    return _table(head, rows)


def _new_place(report: dict[str, Any], lengths: Sequence[str]) -> str:
    rows = []
    for length in lengths:
        unasked = _kind(report, length, ONE, UNASKED, NEW_PLACE)
        rows.append(
            [
                f"{int(length):,}",
                _ms(total_ms(report, length, ONE, UNASKED, NEW_PLACE)),
                "–" if unasked is None else ", ".join(unasked["prompt_kinds"]),
                _ms(total_ms(report, length, LINE, UNASKED, NEW_PLACE)),
                _ms(total_ms(report, length, ONE, KEYSTATE, NEW_PLACE)),
                *(_ms(total_ms(report, length, ONE, peer, NEW_PLACE)) for peer in GIVEN_PROMPTS),
            ]
        )
    head = [
        "tokens",
        "unasked, first token",
        "answered from",
        "unasked, a line",
        "keystate's whole epoch",
        *(f"{peer}'s whole prompt" for peer in GIVEN_PROMPTS),
    ]
    return _table(head, rows)


def _memory(report: dict[str, Any], lengths: Sequence[str]) -> str:
    rows = []
    for peer in PEERS:
        cells = []
        for length in lengths:
            n_bytes = report["lengths"][length].get(LINE, {}).get(peer, {}).get("rss_bytes")
            cells.append("–" if n_bytes is None else f"{n_bytes / 1e6:,.0f}")
        if set(cells) != {"–"}:
            rows.append([peer, *cells])
    return _table(["resident, MB", *(f"{int(length):,} tokens" for length in lengths)], rows)


def _typing(report: dict[str, Any]) -> str:
    typing = report["typing"]
    rows = [
        [peer, _seconds(cost["cpu_s_per_1000_chars"]), f"{(cost['rss_bytes'] or 0) / 1e6:,.0f}"]
        for peer, cost in typing["peers"].items()
    ]
    said = (
        f"{typing['typed']:,} characters typed into a document of {typing['tokens']:,} tokens, a"
        " line asked for after each, as fast as it comes; two characters are taken back and typed"
        " again after every twenty. `keystate serve` is as it ships: with its windows, reading"
        " ahead, copying, and suggestions that are typed along.\n"
    )
    head = ["", "processor seconds per 1,000 characters", "resident, MB"]
    return f"{said}\n{_table(head, rows)}"


def _start(report: dict[str, Any]) -> str:
    rows = [[peer, f"{seconds:.2f}"] for peer, seconds in report["start_s"].items()]
    return _table(["", "seconds"], rows)


def _kind(
    report: dict[str, Any], length: str, want: str, peer: str, kind: str
) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (
        report["lengths"].get(length, {}).get(want, {}).get(peer, {}).get("kinds", {}).get(kind)
    )
    return found


def _has(report: dict[str, Any], length: str, want: str, peer: str) -> bool:
    return peer in report["lengths"][length].get(want, {})


def _ms(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:,.1f}" if ms < 100 else f"{ms:,.0f}"


def _with_longest(ms: float | None, found: dict[str, Any] | None) -> str:
    """Write a median, and the longest wait where that was twice as long and more."""
    if ms is None or found is None:
        return _ms(ms)
    longest = found["first_ms_max"] + ms - found["first_ms"]
    return _ms(ms) if longest < 2 * ms else f"{_ms(ms)} ({_ms(longest)})"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}×"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("--:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
