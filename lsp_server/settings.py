"""What a user can set, read from `initializationOptions`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import cattrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's settings; a client writes the names in camelCase.

    `initializationOptions` is the only way in, because a client fills it from the user's own
    configuration. Were settings ever read from a workspace, `model` and `device` must not be.
    Raises ValueError with the offending value.
    """

    model: str | None = None
    """A directory or a hub id; None is the embedded model."""
    device: str = "auto"
    """A torch device; "auto" is CUDA where there is one."""
    threads: int | None = None
    """How many threads compute on a CPU; None is half the cores."""
    deadline_ms: float = 300.0
    """How long a suggestion may take that nobody asked for."""
    invoked_deadline_ms: float = 3000.0
    """The same for one that the user asked for."""
    max_tokens: int = 64
    """The longest suggestion."""
    save_states: bool = True
    """Whether what was read of recent files is kept on disk (for you alone) for the next start."""

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "invoked_deadline_ms"):
            value = getattr(self, name)
            if not 1 <= value <= 600_000:
                raise ValueError(f"{name} is {value}, expected 1 to 600000 milliseconds")
        if not 1 <= self.max_tokens <= 4096:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected 1 to 4096")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ValueError(f"threads is {self.threads}, expected 1 to 1024")
        if self.model is not None and not self.model.strip():
            raise ValueError("model is empty, expected a directory or a hub id")


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


_FIELDS = {_camel_case(field.name): field for field in fields(Settings)}


def read_settings(options: object, forced: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from a client's options, and a line for each option that was not taken.

    `forced` are the command line's; they win over the client's.
    """
    if options is None:
        options = {}
    if not isinstance(options, dict):
        return Settings(**forced), [
            f"initializationOptions is a {type(options).__name__}, expected an object"
        ]
    problems = []
    unknown = sorted(str(key) for key in options if key not in _FIELDS)
    if unknown:
        known = ", ".join(_FIELDS)
        problems.append(f"unknown settings: {', '.join(unknown)} (there are {known})")
    taken: dict[str, Any] = {}
    for key, field in _FIELDS.items():
        if key not in options or field.name in forced:
            continue
        try:
            value = _CONVERTER.structure(options[key], _TYPES[field.name])
            Settings(**{field.name: value})
        except (ValueError, TypeError) as error:
            problems.append(f"setting {key}: {error}")
        else:
            taken[field.name] = value
    return Settings(**taken, **forced), problems


_TYPES: dict[str, Any] = {
    "model": str | None,
    "device": str,
    "threads": int | None,
    "deadline_ms": float,
    "invoked_deadline_ms": float,
    "max_tokens": int,
    "save_states": bool,
}


def _exactly_bool(value: Any, _: type) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def _make_converter() -> cattrs.Converter:
    """A converter that takes values as they are: a number in quotes is a mistake worth telling."""
    converter = cattrs.Converter(detailed_validation=False)

    def exactly(kind: type, *accepted: type) -> None:
        def structure(value: Any, _: type) -> Any:
            if not isinstance(value, accepted) or isinstance(value, bool):
                raise TypeError(f"{value!r} is not a {kind.__name__}")
            return kind(value)

        converter.register_structure_hook(kind, structure)

    exactly(str, str)
    exactly(int, int)
    exactly(float, int, float)
    converter.register_structure_hook(bool, _exactly_bool)
    return converter


_CONVERTER = _make_converter()
