"""What a model says of itself in `keystate.json`, beside its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.safetensors_header import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "keystate.json"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What its makers found out about a model.

    languages: LSP's identifiers of those it knows, None for any. min_confidence: the probability,
    0 to 1, that a suggestion nobody asked for must have to be worth showing. header: whether an
    outline and definitions from other files, before the window, are worth their tokens.
    """

    languages: frozenset[str] | None = None
    min_confidence: float = 0.0
    header: bool = True

    def knows(self, language_id: str) -> bool:
        """Tell whether the model was made for a language."""
        return self.languages is None or language_id in self.languages


def read_declaration(path: Path) -> Declaration:
    """Read the declaration in a model's directory; a model without one knows everything.

    Raises CheckpointError, for a key that means nothing too.
    """
    file = path / FILE
    try:
        declared = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Declaration()
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(file, "an object in JSON", str(error)) from error
    if not isinstance(declared, dict):
        raise _wrong(file, "an object in JSON", type(declared).__name__)
    unknown = sorted(declared.keys() - {"languages", "min_confidence", "header"})
    if unknown:
        raise _wrong(file, "languages, min_confidence and header alone", ", ".join(unknown))
    return Declaration(
        languages=_languages(file, declared.get("languages")),
        min_confidence=_probability(file, declared.get("min_confidence", 0.0)),
        header=_truth(file, declared.get("header", True)),
    )


def _languages(file: Path, value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise _wrong(file, "languages: a list of language identifiers", repr(value))
    return frozenset(value)


def _probability(file: Path, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise _wrong(file, "min_confidence: a number from 0 to 1", repr(value))
    return float(value)


def _truth(file: Path, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(file, "header: true or false", repr(value))
    return value


def _wrong(file: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        file, expected=expected, found=found, remedy=f"Put {file.name} right, or remove it."
    )
