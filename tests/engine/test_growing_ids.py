from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.growing_ids import MAX_TEXTS, GrowingIds
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = st.lists(
    st.sampled_from(["a", "def f(x):", "\n", "    ", "é🍰", "\r\n", "\n\n", "x = 1\n", "▁"]),
    max_size=9,
).map("".join)


@pytest.fixture(scope="module", params=["small", "mistral"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.load(request.getfixturevalue(f"{request.param}_tokenizer_dir"))


@given(texts=st.lists(TEXTS, max_size=8))
def test_ids_are_those_of_the_whole_text(tokenizer: Tokenizer, texts: list[str]) -> None:
    growing = GrowingIds(tokenizer)
    text = ""
    for part in texts:
        # grown, cut back, and another text in turn
        for asked in (text + part, text[: len(text) // 2] + part, part):
            ids = growing.encode(asked)
            assert ids.dtype == np.int32
            assert ids.tolist() == tokenizer.encode_start(asked)
        text += part


def test_only_new_lines_are_encoded(
    small_tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(small_tokenizer_dir)
    growing = GrowingIds(tokenizer)
    text = "value = 1\n" * 500
    growing.encode(text)
    asked: list[str] = []
    encode = tokenizer.encode

    def counted(text: str) -> list[int]:
        asked.append(text)
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", counted)
    for end in range(1, 20):
        growing.encode(text + "for item in self.\n"[:end])
    assert sum(map(len, asked)) <= 19 * 20
    assert tokenizer.encode_start(text + "x")[-1:] == growing.encode(text + "x").tolist()[-1:]


def test_few_texts_are_kept(small_tokenizer_dir: Path) -> None:
    growing = GrowingIds(Tokenizer.load(small_tokenizer_dir))
    for n in range(3 * MAX_TEXTS):
        growing.encode(f"text {n}\n")
    assert len(growing._kept) == MAX_TEXTS
