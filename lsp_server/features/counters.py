"""`keystate/counters`: what the engine has done since it started.

No parameters. The result is an object of numbers: `answers_STOP` by stop reason;
`cache_hits_tierN`, `cache_misses`, `cache_spilled`, `cache_evicted`, `cache_thinned`,
`cache_refused`; `trail_hits`, which ask nothing of the cache; `cache_checkpoints`, `cache_bytes`,
`trail_bytes`; `background_tokens` and `background_passes`, which no answer counts as its own;
`int8_states`, which is 1 where states are kept as int8 and answers are not exact, else 0;
`typed_through`, requests answered with the rest of a suggestion, which the engine never saw. Empty
while the model loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsp_server.server import Server

COUNTERS = "keystate/counters"


async def counters(server: Server, _params: object) -> dict[str, int]:
    """Give the counters."""
    suggester = server.loaded_suggester
    if suggester is None:
        return {}
    return {**suggester.engine.counters(), "typed_through": server.type_through.n_answers}
