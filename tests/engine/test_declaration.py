from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.checkpoint import EMBEDDED, CheckpointError
from engine.declaration import FILE, Declaration, read_declaration

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_without_one_knows_everything(tmp_path: Path) -> None:
    declaration = read_declaration(tmp_path)
    assert declaration == Declaration()
    assert declaration.knows("python")
    assert declaration.knows("cobol")
    assert declaration.min_confidence == 0


def test_the_embedded_model_declares_what_it_knows() -> None:
    declaration = read_declaration(EMBEDDED)
    assert declaration.knows("python")
    assert not declaration.knows("cobol")
    assert 0 < declaration.min_confidence < 1


def test_all_of_it(tmp_path: Path) -> None:
    text = '{"languages": ["go", "rust"], "min_confidence": 1, "header": false}'
    (tmp_path / FILE).write_text(text)
    declaration = read_declaration(tmp_path)
    assert declaration == Declaration(
        languages=frozenset({"go", "rust"}), min_confidence=1.0, header=False
    )
    assert not declaration.knows("python")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "list"),
        ("{", "keystate.json"),
        ('{"langauges": []}', "langauges"),
        ('{"languages": "python"}', "'python'"),
        ('{"languages": [1]}', "[1]"),
        ('{"min_confidence": 1.5}', "1.5"),
        ('{"min_confidence": true}', "True"),
        ('{"min_confidence": NaN}', "nan"),
        ('{"header": "no"}', "'no'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError) as error:
        read_declaration(tmp_path)
    assert said in str(error.value)
    assert FILE in str(error.value)
