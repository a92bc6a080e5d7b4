"""What editors type by themselves: closing brackets and quotes, indentation after Enter.

The rules are those of VS Code's default settings, in short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLOSER_OF = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}
QUOTES = "\"'`"
# In front of other characters nothing is closed: what opens there is put around them.
_CLOSES_BEFORE = frozenset(" \t\n;:.,=}])>")
_INDENTATION = re.compile(r"[ \t]*")
_INDENTED = re.compile(r"^(\t| {2}| {4}| {8})(?=\S)", re.MULTILINE)
_LINES_SAMPLED = 400


@dataclass(frozen=True, kw_only=True)
class Enter:
    """What pressing Enter inserts: line end and indentation, and more behind the cursor."""

    before_cursor: str
    behind_cursor: str = ""


def closer_for(key: str, before: str, behind: str) -> str:
    """What the editor puts behind the cursor when `key` is typed; empty for nothing.

    before, behind: the characters on both sides of the cursor, empty at the text's ends.
    """
    closer = CLOSER_OF.get(key, "")
    if not closer or (behind and behind not in _CLOSES_BEFORE):
        return ""
    if key in QUOTES and (before.isalnum() or before in ("_", key)):
        return ""
    return closer


def enter(line_before: str, behind: str, unit: str, *, is_python: bool) -> Enter:
    """What Enter inserts on a line that reads `line_before` up to the cursor.

    behind: the character after the cursor; unit: one level of indentation.
    """
    indentation = indentation_of(line_before)
    code = line_before.rstrip(" \t")
    deeper = "\n" + indentation + unit
    if code and code[-1] in "([{":
        if behind == CLOSER_OF[code[-1]]:
            return Enter(before_cursor=deeper, behind_cursor="\n" + indentation)
        return Enter(before_cursor=deeper)
    if is_python and code.endswith(":"):
        return Enter(before_cursor=deeper)
    return Enter(before_cursor="\n" + indentation)


def indentation_of(line: str) -> str:
    """The blanks that a line starts with."""
    match = _INDENTATION.match(line)
    assert match is not None, "the pattern matches the empty string"
    return match[0]


def indentation_unit(text: str) -> str:
    """One level of the indentation that a text uses; four spaces where it has none."""
    found = _INDENTED.findall("\n".join(text.split("\n")[:_LINES_SAMPLED]))
    if not found:
        return "    "
    if found.count("\t") * 2 > len(found):
        return "\t"
    # The least deep lines show it, unless they are a few that stand out.
    frequent = [unit for unit in set(found) if found.count(unit) * 10 >= len(found)]
    return min((unit for unit in frequent if unit != "\t"), key=len, default="    ")
