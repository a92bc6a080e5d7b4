"""How the functions of a pass are compiled: into the one that is called from outside."""

import numba

_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# Products may be fused with the sums they go into.
inner = numba.njit(fastmath={"contract"}, **_INNER)
# Where terms may be summed in any order.
inner_sum = numba.njit(fastmath={"contract", "reassoc", "nsz"}, **_INNER)
# For what is called in few places: every function that is compiled by itself costs a tenth of a
# second.
inlined = numba.njit(inline="always", fastmath={"contract"}, **_INNER)
