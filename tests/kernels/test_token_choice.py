"""The choice of a token, against the probabilities of all of them in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import token_choice
from kernels.token_choice import on_device, on_host, reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from torch import Tensor

    from kernels.token_choice import Copied

VERSIONS = [on_device, on_host]
versions = pytest.mark.parametrize("version", VERSIONS, ids=["on_device", "on_host"])

# Odds that are lost beside others, or drown them.
COPIED = {
    "none": [],
    "one": [(7, 1.0, -0.4)],
    "several": [(3, -2.0, 0.5), (7, 1.0, -0.4), (8, 0.0, 0.0), (11, 3.0, -0.9)],
    "sure": [(7, 200.0, -1.0)],
    "hopeless": [(7, -200.0, 3.0), (8, -300.0, 0.0)],
    "exponent below 0": [(7, -1.0, -5.0)],
}
ENDS = {
    "all": range(32),
    "few": [5, 7, 30, 8, 1],
    "one": [7],
    "none": [],
    "out of order": [31, 0, 8, 7],
}


def placed(version: ModuleType, device: str) -> str:
    """Where a version runs: that for the host nowhere else."""
    return "cpu" if version is on_host else device


def check(
    version: ModuleType,
    row: Tensor,
    ends: Sequence[int],
    steps: Sequence[int],
    copied: Sequence[Copied],
) -> None:
    """Hold a choice against the reference; what is copied but not asked for is left out."""
    copied = [one for one in copied if one[0] in {*ends, *steps}]
    end_ids, before = torch.tensor(ends, dtype=torch.long, device=row.device), row.clone()
    found = version.choose(row, end_ids, steps, copied)
    expected = reference.choose(row, end_ids, steps, copied)
    assert torch.equal(row, before)
    assert version.log_mass(row) == pytest.approx(reference.log_mass(row), abs=1e-5)
    assert found.mass == pytest.approx(expected.mass, abs=1e-5)
    assert found.steps == pytest.approx(expected.steps, abs=1e-5)
    log_probs = [log_prob for _, log_prob in found.best]
    assert log_probs == pytest.approx([log_prob for _, log_prob in expected.best], abs=1e-5)
    wanted = [token_id for token_id, log_prob in expected.best if log_prob > -math.inf]
    assert [token_id for token_id, _ in found.best][: len(wanted)] == wanted


@versions
@pytest.mark.parametrize("copied", COPIED.values(), ids=COPIED.keys())
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("with_steps", [False, True], ids=["ends", "ends_and_steps"])
def test_against_the_probabilities_of_all(
    version: ModuleType, ends: list[int], with_steps: bool, copied: list[Copied], device: str
) -> None:
    steps = [i for i in (2, 11, 3) if i not in ends] if with_steps else []
    if not ends and not steps:
        return
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        row = 4 * torch.randn(32, generator=generator)
        check(version, row.to(placed(version, device)), list(ends), steps, copied)


@versions
def test_what_is_asked_for_may_be_very_improbable(version: ModuleType, device: str) -> None:
    """Beyond what float32 can hold as a probability."""
    row = torch.linspace(-300, 0, 40, device=placed(version, device))
    check(version, row, [0, 1, 2], [3, 4], [(1, 2.0, -0.1), (4, 1.0, 0.0)])


@versions
def test_what_cannot_be_is_not_made_so_by_copying(version: ModuleType, device: str) -> None:
    row = torch.arange(6.0, device=placed(version, device))
    row[2] = -torch.inf
    check(version, row, [0, 1, 2], [], [(2, 5.0, -1.0), (1, 5.0, 0.0)])


@versions
def test_rows_of_a_model_s_size(version: ModuleType, device: str) -> None:
    """Sums over so many are where digits get lost."""
    generator = torch.Generator().manual_seed(0)
    row = (3 * torch.randn(32_768, generator=generator)).to(placed(version, device))
    copied = [(i, 2.0, -0.3) for i in range(100, 120)]
    check(version, row, range(5, 32_000), [], copied)
    check(version, row, range(100, 9000), range(20, 40), copied)


@given(
    seed=st.integers(0, 2**16),
    asked=st.lists(st.integers(0, 15), min_size=1, unique=True),
    n_steps=st.integers(0, 4),
    copied=st.lists(
        st.tuples(st.integers(0, 15), st.floats(-6, 6), st.floats(-2, 2)),
        max_size=6,
        unique_by=lambda one: one[0],
    ),
)
@settings(max_examples=60, deadline=None)
def test_both_versions_choose_alike(
    seed: int, asked: list[int], n_steps: int, copied: list[Copied]
) -> None:
    row = 5 * torch.randn(16, generator=torch.Generator().manual_seed(seed))
    n_steps = min(n_steps, len(asked))
    for version in VERSIONS:
        check(version, row, asked[n_steps:], asked[:n_steps], copied)


def test_a_device_s_choice_reads_from_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time is a wait for all that the device has to do."""
    n_read = 0
    reading = torch.Tensor.tolist

    def counted(tensor: Tensor) -> object:
        nonlocal n_read
        n_read += 1
        return reading(tensor)

    def refused(_: Tensor) -> float:
        raise AssertionError("a number was read by itself")

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    for name in ("item", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    on_device.choose(torch.randn(16), torch.arange(8), range(8, 12), [(7, 1.0, 0.5)])
    assert n_read == 1


def test_what_runs_where(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    called = []
    for version in VERSIONS:
        for name in ("choose", "log_mass"):
            monkeypatch.setattr(version, name, lambda *_, version=version: called.append(version))
    row = torch.randn(4, device=device)
    token_choice.choose(row, torch.arange(4, device=device))
    token_choice.log_mass(row)
    assert called == [on_host if device == "cpu" else on_device] * 2
