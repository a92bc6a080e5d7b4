"""Languages get their share of the tokens; the learning rate rises and falls in each stage."""

from pathlib import Path

import pytest

from engine.tokenizer import Tokenizer
from lsp_server.context import header_of
from lsp_server.documents import Document
from lsp_server.syntax import language_id_of
from training.corpus import pack
from training.headers import path_header
from training.mixture import SHARES, Mixture
from training.recipe import Recipe, Stage, scale_of
from training.samples import Sampler
from training.sources import LANGUAGES

EMBEDDED = Path(__file__).parents[2] / "engine" / "embedded"


class Fixed:
    """A sampler whose samples all are its number, so many times."""

    def __init__(self, number: int, length: int) -> None:
        self.ids = [number] * length

    def sample(self) -> list[int]:
        return self.ids


def mixture(seed: int) -> Mixture:
    samplers = {
        language: Fixed(number, 40 + 300 * number) for number, language in enumerate(LANGUAGES)
    }
    return Mixture(samplers, seed)  # type: ignore[arg-type]


def test_tokens_come_in_their_shares_whatever_the_samples_lengths() -> None:
    mixed = mixture(1)
    drawn = [token for _ in range(4000) for token in mixed.sample()]
    for number, language in enumerate(LANGUAGES):
        assert drawn.count(number) / len(drawn) == pytest.approx(SHARES[language], abs=0.01)


def test_streams_side_by_side_differ_and_a_seed_repeats_itself() -> None:
    def firsts(seed: int) -> list[int]:
        mixed = mixture(seed)
        return [mixed.sample()[0] for _ in range(10)]

    assert firsts(1) == firsts(1)
    assert len({tuple(firsts(seed)) for seed in range(8)}) > 4


def test_a_language_alone_has_all_the_tokens() -> None:
    mixed = Mixture({"go": Fixed(3, 10)}, seed=0)  # type: ignore[dict-item]
    assert {mixed.sample()[0] for _ in range(5)} == {3}


@pytest.mark.parametrize("path", ["a/b.py", "a/b.go", "a/b.rs", "a/b.ts", "a/b.tsx", "a/b.mjs"])
def test_the_path_stands_as_the_server_writes_it(path: str) -> None:
    document = Document("file:///x", language_id_of(path), 0, "", path=path)
    assert path_header(path) == header_of(document)


def test_other_languages_have_the_path_alone_as_header() -> None:
    tokenizer = Tokenizer.load(EMBEDDED)
    # Even where outline and snippets would find something to say.
    text = "".join(f"def number{n}(first):\n    return {n}\n\n" for n in range(99))
    sampler = Sampler(pack([("a/b.go", text), ("a/c.go", text)]), tokenizer, seed=1)
    headers = {sampler.header(0, text, len(text) // 2, len(text)) for _ in range(200)}
    assert headers == {"", "// a/b.go\n"}


def test_the_learning_rate_rises_and_falls_in_each_stage() -> None:
    recipe = Recipe(warmup_steps=10, decay_share=0.4)
    stage = Stage(step=1000, seconds=50.0, peak=0.5)
    course = [scale_of(n / 200, 1000 + n, stage, recipe) for n in range(200)]
    assert course[0] == pytest.approx(0.05)
    assert course[9:121] == pytest.approx([0.5] * 112)
    assert course[160] == pytest.approx(0.25)
    assert course[199] == pytest.approx(0.5 / 80)
    first = [scale_of(n / 200, n, Stage(), recipe) for n in range(200)]
    assert first == pytest.approx([2 * scale for scale in course])
