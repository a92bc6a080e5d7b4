"""Objects in JSON that somebody else may have written, or damaged.

What is wrong with them is a ValueError with what was found and what was expected, in one line.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

MAX_SHOWN_CHARS = 60
# Larger ones are no longer exact as floats, and some not even finite.
MAX_NUMBER = 2**53
_EXPECTED = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_objects(path: Path, read: Callable[[dict[str, Any]], T], noun: str) -> Iterator[T]:
    """Read a file with an object a line; gives what `read` makes of each.

    What it raises as ValueError, and a line that is no object, is a ValueError with the file, the
    line's number and the noun.
    """
    # Not splitlines(): a line separator may stand within a text.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            done = read(json_object(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not {noun}: {error}") from error
        yield done


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one object; ValueError that names the file for what is none."""
    try:
        return json_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def json_object(data: bytes) -> dict[str, Any]:
    """Decode an object; ValueError for anything else."""
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} is {data[error.start]:#x}, expected JSON in UTF-8"
        raise ValueError(found) from error
    except json.JSONDecodeError as error:
        found = f"{error.msg} (character {error.pos + 1})"
        raise ValueError(f"{found}, expected an object in JSON") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep, expected an object") from error
    return checked(value, dict, "it")


def field(fields: dict[str, Any], name: str, kind: type[T], *default: T) -> T:
    """A field of an object, of this kind; the default, if there is one, for none and for null."""
    if fields.get(name) is None and default:
        return default[0]
    if name not in fields:
        raise ValueError(f"{name} is missing, expected {_EXPECTED[kind]}")
    return checked(fields[name], kind, name)


def checked(value: Any, kind: type[T], name: str) -> T:
    """A value that is of this kind; no text with half characters, no numbers without an end."""
    kinds = (int, float) if kind is float else kind
    is_kind = isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)
    if is_kind and kind in (int, float):
        is_kind = abs(value) <= MAX_NUMBER
    if is_kind and kind is str and not value.isascii():
        half = _SURROGATE.search(value)
        if half is not None:
            found = f"{name} holds {half[0]!r}, half a character"
            raise ValueError(f"{found}, expected whole ones")
    if not is_kind:
        raise ValueError(f"{name} is {_shown(value)}, expected {_EXPECTED[kind]}")
    return cast("T", value)


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return _EXPECTED[type(value)]
    # As JSON has it, not as Python does: null, not None.
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
