from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from engine.epochs import Epochs
from engine.fim import FimFormat, PromptOrder, fim_format
from engine.prompts import BRIDGE_SUFFIX_CHARS, READY_TOKENS, Prompt, Prompts, bridge_suffix
from engine.request import CompletionRequest
from engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.decode import Decoder

PREFIX = "def total(prices):\n    amount = 0\n    for pri"
SUFFIX = " in prices:\n        amount += price\n    return amount\n"


class Missing:
    """As much of a Decoder as a choice asks for: how much of each prompt would have to be read."""

    def __init__(self, epoch: int, trunk: int) -> None:
        self.epoch, self.trunk = epoch, trunk

    def n_missing(self, ids: NDArray[Any], owner: Hashable) -> int:
        assert isinstance(owner, tuple)
        return self.trunk if owner[1] == "trunk" else self.epoch


@pytest.fixture(scope="module")
def fim(small_tokenizer_dir: Path) -> FimFormat:
    return fim_format(Tokenizer.load(small_tokenizer_dir))


@pytest.fixture(scope="module")
def mistral(mistral_tokenizer_dir: Path) -> FimFormat:
    return fim_format(Tokenizer.load(mistral_tokenizer_dir))


def request_of(**changes: Any) -> CompletionRequest:
    fields = {"document": "a.py", "header": "# a.py\n", "prefix": PREFIX, "suffix": SUFFIX}
    return CompletionRequest(**{**fields, **changes})


def choose(
    fim: FimFormat, *, epoch: int = 0, trunk: int = 0, exact: bool = False, **changes: Any
) -> Prompt:
    prompts = Prompts(fim, Epochs(), cast("Decoder", Missing(epoch, trunk)))
    return prompts.choose(request_of(**changes), exact=exact)


# The text a bridge ends at

LINE = "x = 1\n"


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("\n", 1, id="a line's end"),
        pytest.param("return", 6, id="no line's end"),
        pytest.param("y" * BRIDGE_SUFFIX_CHARS, BRIDGE_SUFFIX_CHARS, id="just as much"),
        pytest.param(LINE * 26 + "four", 160, id="just as much, with lines"),
        pytest.param(LINE * 26 + "three5", 156, id="whole lines"),
        pytest.param(LINE + "y" * 500, 6, id="one line, and a long one"),
        pytest.param("y" * 500, BRIDGE_SUFFIX_CHARS, id="a long line alone"),
        pytest.param("\n" + "y" * 500, BRIDGE_SUFFIX_CHARS, id="a long line after the cursor's"),
        pytest.param("\n\n" + "y" * 500, 2, id="an empty line is a line"),
        pytest.param("y" * 159 + "\n" + LINE, 160, id="a line's end just there"),
        pytest.param("y" * 160 + "\n" + LINE, 160, id="a line's end just past it"),
    ],
)
def test_bridge_suffix(after: str, kept: int) -> None:
    assert bridge_suffix(after) == after[:kept]


# What the prompts are


def test_an_epochs_prompt(fim: FimFormat) -> None:
    prompt = choose(fim, exact=True)
    split = fim.split("# a.py\n" + PREFIX)
    assert split.held
    assert b"pri".endswith(split.held)
    assert tuple(prompt.whole) == (*fim.head(PromptOrder.SUFFIX_FIRST, SUFFIX), *split.ids)
    assert (prompt.kind, prompt.held, len(prompt.tail)) == ("epoch", split.held, 0)


def test_a_bridge(fim: FimFormat) -> None:
    prompt = choose(fim, epoch=10_000, suffix=LINE * 50)
    split = fim.split("# a.py\n" + PREFIX)
    tokenizer = fim.tokenizer
    assert (prompt.kind, prompt.held) == ("bridge", split.held)
    assert prompt.ids.tolist() == [tokenizer.bos_id, *split.ids]
    tail = [tokenizer.suffix_id, *tokenizer.encode(LINE * 26), tokenizer.middle_id]
    assert prompt.tail.tolist() == tail
    assert tuple(prompt.whole) == (*prompt.ids, *prompt.tail)
    # As the model was trained on it, but for the held text.
    assert list(fim.prompt(PromptOrder.PREFIX_FIRST, "", LINE * 26)) == [tokenizer.bos_id, *tail]


def test_a_trunk_where_nothing_follows_the_cursor(fim: FimFormat) -> None:
    prompt = choose(fim, epoch=10_000, suffix="")
    split = fim.split("# a.py\n" + PREFIX)
    assert prompt.kind == "trunk"
    assert tuple(prompt.whole) == (fim.tokenizer.bos_id, *split.ids)


def test_a_trunk_of_a_family_that_knows_no_prefix_first_order(mistral: FimFormat) -> None:
    prompt = choose(mistral, epoch=10_000)
    split = mistral.split("# a.py\n" + PREFIX)
    tokenizer = mistral.tokenizer
    assert prompt.kind == "trunk"
    head = (tokenizer.bos_id, tokenizer.suffix_id, tokenizer.prefix_id)
    assert tuple(prompt.whole) == (*head, *split.ids)
    assert choose(mistral, epoch=10_000, exact=True).kind == "epoch"


@pytest.mark.parametrize("text", ["", "x", PREFIX])
def test_all_prompts_of_a_place_hold_back_the_same(fim: FimFormat, text: str) -> None:
    prompts = [
        choose(fim, exact=True, prefix=text),
        choose(fim, epoch=10_000, prefix=text),
        choose(fim, epoch=10_000, prefix=text, suffix=""),
    ]
    assert [prompt.kind for prompt in prompts] == ["epoch", "bridge", "trunk"]
    assert len({prompt.held for prompt in prompts}) == 1
    n_ids = len(prompts[2].ids) - 1
    for prompt in prompts:
        assert prompt.ids[len(prompt.ids) - n_ids :].tolist() == prompts[2].ids[1:].tolist()


# Which one is taken


@pytest.mark.parametrize(
    ("epoch", "trunk", "kind"),
    [
        pytest.param(0, 0, "epoch", id="all is there"),
        pytest.param(READY_TOKENS, 0, "epoch", id="little is missing"),
        pytest.param(READY_TOKENS + 1, 0, "bridge", id="more is missing"),
        pytest.param(1000, 10, "bridge", id="the trunk lacks little"),
        pytest.param(1000, 1000, "epoch", id="the trunk lacks as much"),
        pytest.param(1000, 600, "epoch", id="the trunk saves less than half"),
        pytest.param(1000, 10_000, "epoch", id="the trunk lacks more"),
    ],
)
def test_the_choice(fim: FimFormat, epoch: int, trunk: int, kind: str) -> None:
    assert choose(fim, epoch=epoch, trunk=trunk, suffix="\n").kind == kind
    assert choose(fim, epoch=epoch, trunk=trunk, suffix="\n", exact=True).kind == "epoch"


def test_a_trunk_must_save_half_its_tail_counted(fim: FimFormat) -> None:
    n_tail = len(choose(fim, epoch=10_000).tail)
    assert n_tail > 10
    assert choose(fim, epoch=1000, trunk=499 - n_tail).kind == "bridge"
    assert choose(fim, epoch=1000, trunk=500 - n_tail).kind == "epoch"


# Whose states they are


@pytest.fixture
def owner(fim: FimFormat) -> Callable[..., Hashable]:
    epochs = Epochs()

    def make(epoch: int = 0, **changes: Any) -> Hashable:
        prompts = Prompts(fim, epochs, cast("Decoder", Missing(epoch, 0)))
        return prompts.choose(request_of(**changes), exact=False).owner

    return make


def test_all_places_of_a_document_share_a_trunk(owner: Callable[..., Hashable]) -> None:
    here = owner(10_000)
    assert owner(10_000, prefix="import os\n", suffix=PREFIX + SUFFIX) == here
    assert owner(10_000, document="b.py") != here
    assert owner() != here


def test_an_epoch_owns_what_is_typed_before_its_suffix(owner: Callable[..., Hashable]) -> None:
    here = owner()
    assert owner(prefix=PREFIX + "ce, x[", suffix="]" + SUFFIX) == here
    assert owner(prefix="import os\n", suffix=PREFIX + SUFFIX) != here
    assert owner(header="# b.py\n") != here
    assert owner(document="b.py") != here
    assert owner() == here, "found again after a jump back"


def test_a_closer_that_was_typed_by_the_editor_is_not_in_the_prompt(fim: FimFormat) -> None:
    prompts = Prompts(fim, Epochs(), cast("Decoder", Missing(0, 0)))
    plain = prompts.choose(request_of(), exact=True)
    paired = prompts.choose(request_of(prefix=PREFIX + "(", suffix=")" + SUFFIX), exact=True)
    n_head = len(fim.head(PromptOrder.SUFFIX_FIRST, SUFFIX))
    assert paired.ids[:n_head].tolist() == plain.ids[:n_head].tolist()
