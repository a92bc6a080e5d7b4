from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.tokenizer import Tokenizer, TokenizerError, normal_form

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
OWN_FILES = [
    path
    for folder in ("engine", "kernels", "lsp_server", "perf", "training", "tests")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
] + [REPOSITORY / "pyproject.toml"]

ODD_TEXTS = {
    "empty": "",
    "a line break": "\n",
    "line breaks": "\n\n\n",
    "spaces": "    ",
    "no break at the end": "def f():\n    return 1",
    "CRLF": "a = 1\r\n\r\n  b = 2\r\n",
    "lone CR": "a\rb\r\r\n c",
    "tabs": "\tif x:\n\t\t  y\t= 1\n\t",
    "emoji": "s = '👩‍👩‍👧‍👦 ☺ ☺️'\n🙂",
    "space mark": "▁ ▁a ▁▁\n▁",
    "control pieces": "[SUFFIX] [PREFIX]\n[MIDDLE]<s></s>[INST][REFERENCE_DOC_0]<0x0A><unk>",
    "other breaks": "a\x0bb\x0cc\x85d\u2028e\u2029f\x1cg",
    "NUL": "a\x00b\x00\nc",
    "CJK": "漢字 = '漢字'\n# コメント",
    "combining": "e\u0301 ﬁ Ａ ½\u00a0x",
}

# Made to merge with what comes next: half words, runs, and characters of unusual tokenization.
FRAGMENTS = [
    *("a", "de", "def", "self", ".", "_", "(", "()", "):", "=", "==", "0", "1", "return", "ing"),
    *(" ", "  ", "    ", "\n", "\t", "\r", "\r\n", "▁", "☺", "🙂", "漢", "é", "\x00", "\ufffd"),
    *("[SUFFIX]", "<s>", "#", "//", "/*", "'", '"', "meisterschaftope", "r", "\ud800"),
]
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12).map("".join)


@pytest.fixture(scope="module")
def mistral(mistral_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(mistral_tokenizer_dir)


@pytest.fixture(scope="module")
def small(small_tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(small_tokenizer_dir)


@pytest.fixture(scope="module", params=["mistral", "small"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    loaded: Tokenizer = request.getfixturevalue(request.param)
    return loaded


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer, mistral_tokenizer_dir: Path, small_tokenizer_dir: Path) -> Whole:
    if tokenizer.dummy_prefix:
        return Whole(mistral_tokenizer_dir / "tokenizer.model.v3", guard="☺")
    return Whole(small_tokenizer_dir / "tokenizer.model", guard="")


class Whole:
    """SentencePiece on a whole text at once; what `guard` encodes to is cut off the front."""

    def __init__(self, model: Path, guard: str) -> None:
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.guard = guard
        self.n_guard = len(self.processor.encode(guard))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.processor.encode(self.guard + text)[self.n_guard :]
        return ids

    def encode_start(self, text: str) -> list[int]:
        ids: list[int] = self.processor.encode(text)
        return ids

    def text_pieces(self) -> Iterator[str]:
        for token_id in range(self.processor.vocab_size()):
            is_other = (
                self.processor.is_control(token_id)
                or self.processor.is_byte(token_id)
                or self.processor.is_unknown(token_id)
            )
            if not is_other:
                yield self.processor.id_to_piece(token_id)


class Counting:
    """A SentencePiece processor that notes what it is asked to encode."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.encoded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        ids: list[int] = self.processor.encode(text)
        return ids


def without_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_by_lines_equals_whole_text(tokenizer: Tokenizer, oracle: Whole, text: str) -> None:
    assert tokenizer.encode(text) == oracle.encode(text)
    assert tokenizer.encode_start(text) == oracle.encode_start(text)


def test_by_lines_equals_whole_text_on_own_files(tokenizer: Tokenizer, oracle: Whole) -> None:
    assert len(OWN_FILES) > 5
    for path in OWN_FILES:
        text = path.read_bytes().decode()
        assert tokenizer.encode(text) == oracle.encode(text), path
        crlf = text.replace("\n", "\r\n")
        assert tokenizer.encode_start(crlf) == oracle.encode_start(crlf), path


@given(text=texts)
@settings(deadline=None)
@example("☺\ufe0f")
def test_the_first_token_of_a_part_is_that_of_all_its_tokens(
    tokenizer: Tokenizer, text: str
) -> None:
    for line in text.split("\n"):
        ids = tokenizer.encode_part(line)
        assert tokenizer.first_of_part(line) == (ids[0] if ids else None)


@given(text=texts)
@settings(deadline=None)
@example("☺\ufe0f")
def test_by_lines_equals_whole_text_on_mixtures(
    tokenizer: Tokenizer, oracle: Whole, text: str
) -> None:
    clean = normal_form(text)
    assert tokenizer.encode(text) == oracle.encode(clean)
    assert tokenizer.encode_start(text) == oracle.encode_start(clean)


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_decode_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text.replace("▁", " ")
    assert b"".join(map(tokenizer.piece_bytes, ids)) == tokenizer.held_bytes(text)


def test_decode_keeps_the_leading_space(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(" x")) == " x"


def test_decode_drops_a_cut_character_and_marks_wrong_bytes(tokenizer: Tokenizer) -> None:
    def byte_ids(data: bytes) -> list[int]:
        return [tokenizer.pieces.index(bytes([byte])) for byte in data]

    assert tokenizer.decode(byte_ids("🙂".encode()[:3])) == ""
    assert tokenizer.decode(byte_ids("🙂".encode())) == "🙂"
    assert tokenizer.decode([*byte_ids(b"\x9f"), *tokenizer.encode("a")]) == "\ufffda"
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode("a"), tokenizer.eos_id]) == "a"


def test_control_pieces_in_text_stay_text(tokenizer: Tokenizer) -> None:
    control = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.prefix_id, tokenizer.suffix_id}
    assert not control & set(tokenizer.encode(ODD_TEXTS["control pieces"]))
    assert all(tokenizer.piece_bytes(token_id) == b"" for token_id in control)


def test_ids_come_from_the_vocabulary(mistral: Tokenizer, small: Tokenizer) -> None:
    assert (mistral.n_vocab, mistral.dummy_prefix) == (32768, True)
    assert (mistral.bos_id, mistral.eos_id) == (1, 2)
    assert (mistral.prefix_id, mistral.middle_id, mistral.suffix_id) == (11, 12, 13)
    assert mistral.encode("\n\t") == [781, 780]
    assert (small.n_vocab, small.dummy_prefix) == (400, False)
    assert (small.prefix_id, small.middle_id, small.suffix_id) == (3, 4, 5)


def test_lone_surrogate_is_a_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud83db") == tokenizer.encode("a\ufffdb")
    assert tokenizer.held_bytes("\ud83d▁") == "\ufffd ".encode()


@given(text=texts, continuation=texts)
@settings(deadline=None, max_examples=400)
@example("meisterschaftope", "r")
@example("x = self.", "name")
@example("    ", " ")
@example("a▁", "▁b")
@example("a\ufffd", "\ufffd")
def test_no_continuation_changes_tokens_before_the_last_boundary(
    tokenizer: Tokenizer, oracle: Whole, text: str, continuation: str
) -> None:
    boundary = tokenizer.last_boundary(text)
    before = tokenizer.encode(text[:boundary])
    for whole in (text, text + continuation):
        assert oracle.encode(normal_form(whole))[: len(before)] == before
    assert tokenizer.last_boundary(text + continuation) >= boundary


def test_no_character_changes_tokens_before_a_boundary(tokenizer: Tokenizer, oracle: Whole) -> None:
    """Every cut of a text of the repository, followed by each character that pieces begin with."""
    characters = sorted({piece[0] for piece in oracle.text_pieces() if piece.isascii()})[::7]
    text = (REPOSITORY / "engine" / "tokenizer.py").read_text(encoding="utf-8")[1000:1200]
    for end in range(1, len(text)):
        boundary = tokenizer.last_boundary(text[:end])
        before = tokenizer.encode(text[:boundary])
        for character in [*characters, text[end]]:
            after = oracle.encode(text[:end] + character)
            assert after[: len(before)] == before, (text[:end], character)


@pytest.fixture(scope="module")
def inner_pairs(oracle: Whole) -> set[tuple[str, str]]:
    pieces = [piece.replace("▁", " ") for piece in oracle.text_pieces()]
    return {pair for piece in pieces for pair in pairwise(piece)}


@given(text=texts)
@settings(deadline=None)
def test_last_boundary_is_the_last_that_no_pair_inside_a_piece_spans(
    tokenizer: Tokenizer, inner_pairs: set[tuple[str, str]], text: str
) -> None:
    extendable = {first for first, _ in inner_pairs}
    clean = normal_form(text)
    expected = max(
        offset
        for offset in range(len(text) + 1)
        if offset == 0
        or (offset < len(text) and (clean[offset - 1], clean[offset]) not in inner_pairs)
        or (offset == len(text) and clean[-1] not in extendable)
    )
    assert tokenizer.last_boundary(text) == expected


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        pytest.param("x = 1\n", "", id="line start"),
        pytest.param("\t\t", "", id="tabs"),
        pytest.param("🙂", "", id="outside the vocabulary"),
        pytest.param("", "", id="empty"),
        pytest.param("x = foo", " foo", id="word, with its space"),
        pytest.param("x\n    ", "    ", id="indentation"),
        pytest.param("word", "word", id="first word"),
    ],
)
def test_last_boundary(mistral: Tokenizer, text: str, behind: str) -> None:
    assert text[mistral.last_boundary(text) :] == behind


def test_last_boundary_reads_only_the_tail(mistral: Tokenizer) -> None:
    read: list[int] = []

    class Watched(str):
        def __getitem__(self, key: Any) -> str:
            read.append(key.start if isinstance(key, slice) else key % len(self))
            return str.__getitem__(self, key)

    text = Watched("x = 1\n" * 50_000 + "    return foo")
    assert mistral.last_boundary(text) == len(text) - len(" foo")
    assert min(read) >= len(text) - len("n foo")


def test_only_changed_lines_are_tokenized(mistral_tokenizer_dir: Path) -> None:
    model = mistral_tokenizer_dir / "tokenizer.model.v3"
    counting: Any = Counting(sentencepiece.SentencePieceProcessor(model_file=str(model)))
    tokenizer = Tokenizer(counting, "counting")
    lines = [f"name_{i} = {i}\n" for i in range(3000)]
    tokenizer.encode_start("".join(lines))
    counting.encoded.clear()

    tokenizer.encode_start("".join(lines))
    assert counting.encoded == []

    lines[1500] = "changed()\n"
    ids = tokenizer.encode_start("".join(lines))
    assert counting.encoded == ["\nchanged()\n"]
    assert ids == counting.processor.encode("".join(lines))


def test_long_lines_are_kept_too_but_few(mistral_tokenizer_dir: Path) -> None:
    model = mistral_tokenizer_dir / "tokenizer.model.v3"
    counting: Any = Counting(sentencepiece.SentencePieceProcessor(model_file=str(model)))
    tokenizer = Tokenizer(counting, "counting")
    long = [f"{i}, " * 2000 for i in range(20)]
    tokenizer.encode(long[0])
    counting.encoded.clear()
    tokenizer.encode(long[0])
    assert counting.encoded == []
    for line in long:
        tokenizer.encode(line)
    counting.encoded.clear()
    tokenizer.encode(long[0])
    assert len(counting.encoded) == 1


def test_load_prefers_the_unversioned_name_then_the_newest(
    tmp_path: Path, mistral_tokenizer_dir: Path, small_tokenizer_dir: Path
) -> None:
    mistral = mistral_tokenizer_dir / "tokenizer.model.v3"
    small = small_tokenizer_dir / "tokenizer.model"
    (tmp_path / "tokenizer.model.v2").symlink_to(small)
    (tmp_path / "tokenizer.model.v3").symlink_to(mistral)
    assert Tokenizer.load(tmp_path).n_vocab == 32768
    (tmp_path / "tokenizer.model").symlink_to(small)
    assert Tokenizer.load(tmp_path).n_vocab == 400


def test_load_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer: expected tokenizer\.model"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model" * 100], ids=["empty", "garbage"])
def test_load_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"control_symbols": ["[PREFIX]"]}, r"\[SUFFIX\]", id="no FIM pieces"),
        pytest.param({"normalization_rule_name": "nfkc"}, "normalizes text", id="NFKC"),
        pytest.param({"remove_extra_whitespaces": True}, "normalizes text", id="spaces removed"),
        pytest.param({"byte_fallback": False}, "0 byte pieces", id="no bytes"),
        pytest.param({"bos_id": -1}, "begin-of-sequence", id="no begin"),
        pytest.param({"user_defined_symbols": ["\n\n"]}, "span a line break", id="line breaks"),
    ],
)
def test_load_refuses_what_would_be_wrong(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with (tmp_path / "tokenizer.model").open("wb") as model:
        settings: dict[str, Any] = {
            "vocab_size": 300,
            "model_type": "bpe",
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "byte_fallback": True,
            "control_symbols": ["[PREFIX]", "[SUFFIX]"],
            "hard_vocab_limit": False,
            "minloglevel": 2,
        }
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 20),
            model_writer=model,
            **(settings | options),
        )
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.load(tmp_path)
