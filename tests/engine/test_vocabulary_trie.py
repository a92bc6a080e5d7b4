from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.vocabulary_trie import VocabularyTrie

PIECES = [b"", b"a", b"ab", b"abc", b"b", b"a", b" ", b" a", b"\xff", b"\xff\xff", b"\xff\xfe"]


def check(held: bytes, partial: list[tuple[int, int]], complete: list[int]) -> None:
    found_partial, found_complete = VocabularyTrie(PIECES).covering(held)
    assert found_partial == partial
    assert sorted(found_complete.tolist()) == complete


@pytest.mark.parametrize(
    ("held", "partial", "complete"),
    [
        pytest.param(b"", [], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], id="nothing held: any piece"),
        pytest.param(b"a", [], [1, 2, 3, 5], id="two ids with the same bytes"),
        pytest.param(b"ab", [(1, 1), (5, 1)], [2, 3], id="shorter pieces are partial"),
        pytest.param(b"abcd", [(1, 1), (5, 1), (2, 2), (3, 3)], [], id="no piece is long enough"),
        pytest.param(b" ab", [(6, 1), (7, 2)], [], id="leading space"),
        pytest.param(b"\xff", [], [8, 9, 10], id="last byte in order"),
        pytest.param(b"\xff\xff", [(8, 1)], [9], id="last bytes in order"),
        pytest.param(b"z", [], [], id="no piece"),
    ],
)
def test_covering(held: bytes, partial: list[tuple[int, int]], complete: list[int]) -> None:
    check(held, partial, complete)


@given(
    pieces=st.lists(st.text("ab\xff", max_size=4).map(lambda text: text.encode("latin-1"))),
    held=st.text("ab\xff", max_size=6).map(lambda text: text.encode("latin-1")),
)
def test_covering_is_what_comparing_every_piece_gives(pieces: list[bytes], held: bytes) -> None:
    partial, complete = VocabularyTrie(pieces).covering(held)
    assert sorted(partial) == [
        (i, len(piece))
        for i, piece in enumerate(pieces)
        if piece and len(piece) < len(held) and held.startswith(piece)
    ]
    assert sorted(complete.tolist()) == [
        i for i, piece in enumerate(pieces) if piece and piece.startswith(held)
    ]


def test_ids_are_shared() -> None:
    """They may be half the vocabulary, and are asked for again and again."""
    trie = VocabularyTrie(PIECES)
    once, again = trie.covering(b"a")[1], trie.covering(b"a")[1]
    assert once.dtype == torch.long
    assert once.data_ptr() == again.data_ptr()


def test_empty_vocabulary() -> None:
    partial, complete = VocabularyTrie([b"", b""]).covering(b"a")
    assert (partial, complete.tolist()) == ([], [])
