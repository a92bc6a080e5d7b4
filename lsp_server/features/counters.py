"""`keystate/counters`: what the engine has done since it started.

No parameters. The result is an object of numbers: `answers_STOP` by stop reason;
`cache_hits_tierN`, `cache_misses`, `cache_spilled`, `cache_evicted`, `cache_thinned`,
`cache_refused`; `cache_checkpoints`, `cache_bytes`, `trail_bytes`; `background_tokens` and
`background_passes`, which no answer counts as its own. Empty while the model loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.server import Server

COUNTERS = "keystate/counters"


async def counters(server: Server, _params: object) -> dict[str, int]:
    """Give the engine's counters."""
    suggester = server.loaded_suggester
    return {} if suggester is None else suggester.engine.counters()
