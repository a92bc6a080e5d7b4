"""Lines of code that open a block, and lines that go on with one, in any language."""

from __future__ import annotations

import re

from engine.brackets import CLOSER

_OPENERS = (":", *CLOSER)
# At the indentation of the line that opened the block.
_CONTINUES = re.compile(
    r"(?:else|elif|except|finally|catch|case|default|end|public|private|protected)\b"
)


def opens_block(line: str) -> bool:
    """Whether a block, or what stands in a bracket, begins behind this line."""
    return line.rstrip().endswith(_OPENERS)


def continues_block(line: str) -> bool:
    """Whether a line goes on with the block above it."""
    return _CONTINUES.match(line.strip()) is not None
