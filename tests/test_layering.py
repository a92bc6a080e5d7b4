"""Holds the floors: kernels below engine below lsp_server below perf; nothing imports upwards."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("kernels", "engine", "lsp_server", "perf")
# Who alone may import what.
OWNERS = {
    "pygls": "lsp_server",
    "lsprotocol": "lsp_server",
    "triton": "kernels",
    "llvmlite": "kernels",
}
# What kernels are written with, beside the standard library.
ARRAY_TOOLS = ("torch", "triton", "numpy", "numba", "llvmlite")


def imports(path: Path) -> set[str]:
    """Give the top-level names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def faults(floor: str, found: set[str]) -> set[str]:
    """Give those of the imported names that a file of this floor must not import."""
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    foreign = {name for name, owner in OWNERS.items() if owner != floor}
    own_tools = {"training", "tests"}
    return found & (above | foreign | own_tools)


@pytest.mark.parametrize("floor", FLOORS)
def test_no_file_imports_upwards(floor: str) -> None:
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): bad for path in files if (bad := faults(floor, imports(path)))
    }
    assert not wrong


def test_kernels_see_nothing_but_tensors() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        assert imports(path) <= {"kernels", *ARRAY_TOOLS, *sys.stdlib_module_names}, path


@pytest.mark.parametrize(
    ("floor", "found", "expected"),
    [
        ("kernels", {"torch", "engine"}, {"engine"}),
        ("engine", {"kernels", "lsprotocol"}, {"lsprotocol"}),
        ("lsp_server", {"engine", "pygls", "perf"}, {"perf"}),
        ("perf", {"lsp_server", "triton"}, {"triton"}),
    ],
)
def test_upward_imports_are_seen(floor: str, found: set[str], expected: set[str]) -> None:
    assert faults(floor, found) == expected
