"""What a user can set: the names, the types, and what is said of a value that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, get_type_hints

import cattrs

from lsp_server.quantizations import QUANTIZATIONS
from lsp_server.sharing import CHOICES


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's settings; a client writes the names in camelCase.

    Raises ValueError with the offending value.
    """

    model: str | None = None
    """A directory or a hub id; None is the embedded model."""
    device: str = "auto"
    """A torch device; "auto" is CUDA where there is one."""
    quantize: str | None = None
    """What the weights are rounded to when they are loaded: int8, int4; None: as they are."""
    threads: int | None = None
    """How many threads compute on a CPU; None is half the cores."""
    share_engine: str = "never"
    """Whether the engine is the one that all windows share: auto, always or never."""
    deadline_ms: float = 300.0
    """How long a suggestion may take that nobody asked for."""
    invoked_deadline_ms: float = 3000.0
    """The same for one that the user asked for."""
    max_tokens: int = 64
    """The longest suggestion."""
    min_confidence: float | None = None
    """How probable, 0 to 1, a suggestion must be that nobody asked for; None: what suits the model.
    """
    save_states: bool = True
    """Whether what was read of recent files is kept on disk (for you alone) for the next start."""
    statistics: bool = True
    """Whether numbers are kept, on this machine only, of what was shown, accepted and retained."""
    enabled: bool = True
    """Whether anything is suggested that nobody asked for."""
    languages: Mapping[str, bool] = field(default_factory=dict)
    """The same by language; "*" is for those that are not named, and on where left out."""
    exclude: tuple[str, ...] = ()
    """Globs of files that are for no suggestion unasked, nor read for those in others."""
    read_workspace: bool = True
    """Whether files of the repository that are not open are read too, to copy from; tracked by git,
    never those whose names say that they hold secrets.
    """
    max_file_chars: int = 1_000_000
    """The longest document in which anything is suggested that nobody asked for."""
    speculate_on_battery: bool = False
    """Whether the engine reads ahead of requests while the machine runs on its battery."""

    def __post_init__(self) -> None:
        for name in ("deadline_ms", "invoked_deadline_ms"):
            value = getattr(self, name)
            if not 1 <= value <= 600_000:
                raise ValueError(f"{name} is {value}, expected 1 to 600000 milliseconds")
        if not 1 <= self.max_tokens <= 4096:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected 1 to 4096")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence is {self.min_confidence}, expected 0 to 1")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ValueError(f"threads is {self.threads}, expected 1 to 1024")
        if self.model is not None and not self.model.strip():
            raise ValueError("model is empty, expected a directory or a hub id")
        if self.quantize not in (None, *QUANTIZATIONS):
            raise ValueError(
                f"quantize is {self.quantize!r}, expected {' or '.join(QUANTIZATIONS)}"
            )
        if self.share_engine not in CHOICES:
            raise ValueError(
                f"share_engine is {self.share_engine!r}, expected {', '.join(CHOICES)}"
            )
        if not 0 <= self.max_file_chars <= 2**31:
            raise ValueError(f"max_file_chars is {self.max_file_chars}, expected 0 to 2147483648")


# What says which code runs and what is kept is taken from the options of a start alone, which a
# client fills from the user's own configuration. Any workspace may have a hand in what comes later.
START_ONLY = frozenset({"model", "device", "quantize", "threads", "share_engine", "save_states"})


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


FIELDS = {_camel_case(field.name): field.name for field in fields(Settings)}
"""The settings' names here, by those that clients use."""
_TYPES = get_type_hints(Settings)


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
    taken, problems = read_values(options)
    return Settings(**{**taken, **forced}), problems


def read_values(options: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings among options that are good, by their names here, and a line for each other."""
    taken: dict[str, Any] = {}
    problems = [_unknown(str(key)) for key in options if key not in FIELDS]
    for key, name in FIELDS.items():
        if key not in options:
            continue
        try:
            value = _CONVERTER.structure(options[key], _TYPES[name])
            Settings(**{name: value})
        except (ValueError, TypeError, OverflowError) as error:
            problems.append(f"setting {key}: {error}")
        else:
            taken[name] = value
    return taken, problems


def _unknown(key: str) -> str:
    by_lower_case = {name.lower(): name for name in FIELDS}
    near = get_close_matches(key.replace("_", "").lower(), by_lower_case, 1)
    said = f"did you mean {by_lower_case[near[0]]}?" if near else f"there are {', '.join(FIELDS)}"
    return f"unknown setting {key[:80]}: {said}"


def _make_converter() -> cattrs.Converter:
    """A converter that takes values as they are: a number in quotes is a mistake worth telling."""
    converter = cattrs.Converter(detailed_validation=False)

    def exactly(kind: type, *accepted: type) -> None:
        def structure(value: Any, _: Any) -> Any:
            is_bool = isinstance(value, bool)
            if not isinstance(value, accepted) or (is_bool and kind is not bool):
                said = "true or false" if kind is bool else f"a {kind.__name__}"
                raise TypeError(f"{value!r} is not {said}")
            return kind(value)

        converter.register_structure_hook(kind, structure)

    exactly(str, str)
    exactly(int, int)
    exactly(float, int, float)
    exactly(bool, bool)
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _globs)
    converter.register_structure_hook_func(lambda kind: kind == Mapping[str, bool], _languages)
    return converter


def _globs(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(glob, str) for glob in value):
        raise TypeError(f"{value!r} is not a list of globs")
    return tuple(value)


def _languages(value: Any, _: Any) -> dict[str, bool]:
    if not isinstance(value, dict) or not all(isinstance(on, bool) for on in value.values()):
        raise TypeError(f"{value!r} is not an object of languages and true or false")
    return dict(value)


_CONVERTER = _make_converter()
