from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from engine.fim import MAX_HELD_TOKENS, FimFormat, PromptOrder, fim_format
from engine.tokenizer import Tokenizer

REPOSITORY = Path(__file__).parents[2]
ODD = ["", " ", "\n", "\r\n", "\t", "▁", "☺", "👩‍👩‍👧‍👦", "[SUFFIX]", "<s>", "漢字", "\x00", "    "]

code = st.lists(
    st.sampled_from([*ODD, "def", " f", "(", "):", "self", ".", "_name", "0", "=", "ab", "c"]),
    max_size=15,
).map("".join)


@pytest.fixture(scope="module")
def mistral(mistral_tokenizer_dir: Path) -> FimFormat:
    return fim_format(Tokenizer.load(mistral_tokenizer_dir))


@pytest.fixture(scope="module")
def own(small_tokenizer_dir: Path) -> FimFormat:
    return fim_format(Tokenizer.load(small_tokenizer_dir))


@pytest.fixture(scope="module", params=["mistral", "own"])
def fim(request: pytest.FixtureRequest) -> FimFormat:
    chosen: FimFormat = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
def oracle(mistral_tokenizer_dir: Path) -> MistralTokenizer:
    return MistralTokenizer.from_file(str(mistral_tokenizer_dir / "tokenizer.model.v3"))


def snippets(n: int, seed: int) -> list[str]:
    """Cuts at any character out of this repository's files, some with odd text put in."""
    rng = random.Random(seed)
    text = "".join(
        path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "engine").glob("*.py"))
    )
    found = []
    for _ in range(n):
        start = rng.randrange(len(text))
        snippet = text[start : start + rng.choice([0, 1, 5, 40, 400])]
        at = rng.randint(0, len(snippet))
        found.append(snippet[:at] + rng.choice(ODD) + snippet[at:])
    return found


def test_mistral_check_vector(mistral: FimFormat) -> None:
    ids = mistral.prompt(PromptOrder.SUFFIX_FIRST, "def f(", "return a + b")
    assert ids == [1, 13, 1575, 1032, 1416, 1055, 11, 1569, 1053, 29500]


def test_mistral_equals_its_own_encoding(mistral: FimFormat, oracle: MistralTokenizer) -> None:
    prefixes, suffixes = snippets(500, seed=1), snippets(500, seed=2)
    assert "" in prefixes
    assert "" in suffixes
    for prefix, suffix in zip(prefixes, suffixes, strict=True):
        expected = oracle.encode_fim(FIMRequest(prompt=prefix, suffix=suffix)).tokens
        assert mistral.prompt(PromptOrder.SUFFIX_FIRST, prefix, suffix) == expected


def test_mistral_without_suffix(mistral: FimFormat, oracle: MistralTokenizer) -> None:
    ids = mistral.prompt(PromptOrder.SUFFIX_FIRST, "def f(", "")
    assert ids == [1, 13, 11, 1569, 1053, 29500]
    assert ids == oracle.encode_fim(FIMRequest(prompt="def f(", suffix=None)).tokens


def test_mistral_knows_no_prefix_first(mistral: FimFormat) -> None:
    for build in (
        lambda: mistral.prompt(PromptOrder.PREFIX_FIRST, "a", "b"),
        lambda: mistral.head(PromptOrder.PREFIX_FIRST, "b"),
        lambda: mistral.tail(PromptOrder.PREFIX_FIRST, "b"),
    ):
        with pytest.raises(ValueError, match="mistral-v3 knows no prefix-first prompts"):
            build()


def test_own_orders(own: FimFormat) -> None:
    tokenizer = own.tokenizer
    bos, prefix, suffix = tokenizer.bos_id, tokenizer.encode("def f("), tokenizer.encode("x\n y")
    prefix_mark, suffix_mark, middle = (
        tokenizer.prefix_id,
        tokenizer.suffix_id,
        tokenizer.middle_id,
    )

    def prompt(order: PromptOrder) -> list[int]:
        return own.prompt(order, "def f(", "x\n y")

    assert prompt(PromptOrder.SUFFIX_FIRST) == [bos, suffix_mark, *suffix, prefix_mark, *prefix]
    assert prompt(PromptOrder.PREFIX_FIRST) == [bos, *prefix, suffix_mark, *suffix, middle]
    assert prompt(PromptOrder.PLAIN) == [bos, *prefix]


@given(text=code, continuation=code)
@settings(deadline=None, max_examples=300)
def test_split_commits_what_the_longer_text_begins_with(
    fim: FimFormat, text: str, continuation: str
) -> None:
    split = fim.split(text)
    dummy = " " if fim.tokenizer.dummy_prefix else ""
    committed = b"".join(map(fim.tokenizer.piece_bytes, split.ids.tolist()))
    assert committed + split.held == fim.tokenizer.held_bytes(dummy + text)

    whole = fim.prefix_ids(text)
    assert whole[: len(split.ids)] == split.ids.tolist()
    assert len(whole) - len(split.ids) <= MAX_HELD_TOKENS
    if len(fim.tokenizer.held_bytes(text)) <= MAX_HELD_TOKENS:
        longer = fim.prefix_ids(text + continuation)
        assert longer[: len(split.ids)] == split.ids.tolist()


def test_typing_only_ever_commits_more(fim: FimFormat) -> None:
    text = (REPOSITORY / "engine" / "fim.py").read_text(encoding="utf-8")[:1500]
    committed: list[int] = []
    for end in range(len(text) + 1):
        ids = fim.split(text[:end]).ids.tolist()
        assert ids[: len(committed)] == committed
        committed = ids
    assert fim.prefix_ids(text)[: len(committed)] == committed


@pytest.mark.parametrize(
    ("text", "held"),
    [
        pytest.param("", b" ", id="empty: the dummy space alone"),
        pytest.param("de", b" de", id="first word"),
        pytest.param("def f", b" f", id="word with its own space"),
        pytest.param("def f\n", b"", id="line start"),
        pytest.param("x ▁", b"  ", id="space mark is a space"),
        pytest.param("漢", b"", id="boundary at the end"),
    ],
)
def test_mistral_holds_the_dummy_space_with_the_first_word(
    mistral: FimFormat, text: str, held: bytes
) -> None:
    assert mistral.split(text).held == held


def test_own_holds_no_dummy_space(own: FimFormat) -> None:
    assert own.split("").held == b""
    assert own.split("de").held == b"de"


@pytest.mark.parametrize("n_before", [0, 1, 700], ids=["at the start", "early", "far down"])
def test_run_without_boundary_holds_its_last_tokens(fim: FimFormat, n_before: int) -> None:
    text = "x = 1\n" * n_before + " " * 900
    split = fim.split(text)
    ids = fim.prefix_ids(text)
    assert split.ids.tolist() == ids[:-MAX_HELD_TOKENS]
    assert split.held == b"".join(map(fim.tokenizer.piece_bytes, ids[-MAX_HELD_TOKENS:]))


def test_limit_counts_tokens_and_not_characters(fim: FimFormat) -> None:
    line = "x = 1\n"
    n_line = len(fim.prefix_ids(line))
    n_most = max(
        n for n in range(600) if len(fim.prefix_ids(line + " " * n)) - n_line <= MAX_HELD_TOKENS
    )
    assert n_most > 4 * MAX_HELD_TOKENS
    for n in (n_most // 2, n_most):
        assert fim.split(line + " " * n).held == b" " * n
    over = fim.prefix_ids(line + " " * (n_most + 1))
    assert fim.split(line + " " * (n_most + 1)).ids.tolist() == over[:-MAX_HELD_TOKENS]


def test_dummy_space_counts_as_held(mistral: FimFormat) -> None:
    n_most = max(n for n in range(600) if len(mistral.prefix_ids(" " * n)) <= MAX_HELD_TOKENS)
    assert mistral.split(" " * n_most).ids.tolist() == []
    over = mistral.prefix_ids(" " * (n_most + 1))
    assert len(mistral.tokenizer.encode(" " * (n_most + 1))) == MAX_HELD_TOKENS
    assert mistral.split(" " * (n_most + 1)).ids.tolist() == over[:1]


def test_a_trunk_and_a_bridge_make_the_orders_known(small_tokenizer_dir: Path) -> None:
    fim = fim_format(Tokenizer.load(small_tokenizer_dir))
    trunk = [*fim.trunk_head(), *fim.prefix_ids("def f(")]
    assert trunk == fim.prompt(PromptOrder.PLAIN, "def f(", "")
    bridged = [*trunk, *fim.bridge("return a + b")]
    assert bridged == fim.prompt(PromptOrder.PREFIX_FIRST, "def f(", "return a + b")
    assert fim.bridge("") == []


def test_mistral_has_a_trunk_and_no_bridge(mistral_tokenizer_dir: Path) -> None:
    fim = fim_format(Tokenizer.load(mistral_tokenizer_dir))
    assert [*fim.trunk_head(), *fim.prefix_ids("def f(")] == fim.prompt(
        PromptOrder.SUFFIX_FIRST, "def f(", ""
    )
    assert fim.bridge("return a + b") == []
