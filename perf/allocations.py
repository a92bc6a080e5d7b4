"""Counts the memory that tensors take, exactly: every new storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from torch import Tensor


class Allocations(TorchDispatchMode):
    """Counts while it is entered, on this thread; what is written in place, or a view, is no more.

    What numpy made counts where it becomes a tensor. Memory that an operation takes and gives back
    before it ends is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n = self.n_bytes = 0
        self._from_numpy = torch.from_numpy

    def __enter__(self) -> Self:
        super().__enter__()
        # No operation of torch's: it is not dispatched.
        torch.from_numpy = self._taken_over  # type: ignore[assignment]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.from_numpy = self._from_numpy
        super().__exit__(*error)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        made = {storage.data_ptr(): storage.nbytes() for storage in _storages(result)}
        for pointer in made.keys() - given:
            self._count(made[pointer])
        return result

    def _taken_over(self, array: Any) -> Tensor:
        if array.base is None:
            self._count(array.nbytes)
        return self._from_numpy(array)

    def _count(self, n_bytes: int) -> None:
        if n_bytes:
            self.n += 1
            self.n_bytes += n_bytes


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor):
            yield leaf.untyped_storage()
