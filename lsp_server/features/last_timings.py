"""`keystate/lastTimings`: what the last answers took, stage by stage.

No parameters. The result is a list, oldest first, of the answers to `textDocument/inlineCompletion`
since this was last asked, the newest 256 at most; each an object with

- `id`: the request's JSON-RPC id; `uri` and `version` of the document;
- `stop`: why the suggestion ended, "loading" where the model was not loaded in time, "typed" (like
  `prompt_kind`) where it is the rest of one that was there before and the engine was not asked;
- `timings_ms`: {stage: ms}. In order: `receive` (the message is decoded, and waits for the loop),
  `read_ahead` (in which the loop was still at what the last change set off, parsing it included),
  `parse`, `context`, the engine's `queue`, `tokenize`, `lookup` in the cache, `prefill`, `heal`,
  `decode` and `alternatives`, `handover` between threads, `trim`; `total` is their sum, from the
  message read to the answer made; behind it come `reply` (what was read meanwhile is handled
  first) and `serialize`, with the writing;
- but for "loading", `prompt_kind`, `tokens`, `passes`, `state_from` and `hidden` as
  `keystate complete --json` has them; `hidden` is why nothing is shown of what there was:
  "language", "confidence", "repeat" or "syntax".

Superseded and cancelled requests are left out, and those where suggestions are switched off. A
request that is never asked for costs one small object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsp_server.server import Server

LAST_TIMINGS = "keystate/lastTimings"


async def last_timings(server: Server, _params: object) -> list[dict[str, Any]]:
    """Give and forget the answers' timings."""
    return server.answers.take()
