"""Headers say of the code outside a window what the server says of it."""

import numpy as np

from training.corpus import Corpus, pack
from training.headers import MAX_OUTLINE_CHARS, OMITTED, Headers, outline

MODEL = """import json
import os
from shop.prices import round_up

LIMIT = 3


def early(a, b):
    return a + b


class Account:
    def __init__(
        self,
        name: str,
    ) -> None:
        self.name = name

    def pay(self, amount):
        total = round_up(amount)
        print(json.dumps(total))
"""


def test_outline_has_used_imports_what_encloses_and_what_came_before() -> None:
    start = MODEL.index("        total")
    assert outline(MODEL, start, MODEL[start:]) == (
        "import json\n"
        "from shop.prices import round_up\n"
        "def early(a, b):\n"
        "class Account:\n"
        "    def __init__(\n"
        "        self,\n"
        "        name: str,\n"
        "    ) -> None:\n"
        "    def pay(self, amount):\n" + OMITTED
    )


def test_outline_of_nothing_is_nothing() -> None:
    assert outline("x = 1\ny = 2\n", 6, "y = 2\n") == ""


def test_outline_is_bounded_and_keeps_what_encloses() -> None:
    many = "".join(f"def function_number_{n}(argument):\n    pass\n" for n in range(200))
    text = f"class Outer:\n    x = 1\n{many}class Inner:\n    def last(self):\n        return 1\n"
    start = text.index("        return")
    made = outline(text, start, text[start:])
    assert len(made) <= MAX_OUTLINE_CHARS + len(OMITTED)
    assert "class Inner:\n    def last(self):\n" in made
    assert "function_number_199" in made
    assert "function_number_0(" not in made


def corpus() -> Corpus:
    return pack(
        [
            ("shop/prices.py", "def round_up(x):\n    return x\n\n\nclass Price:\n    pass\n"),
            ("shop/account.py", MODEL),
            ("other/prices.py", "def early(z):\n    return z\n"),
        ]
    )


def test_snippets_are_definitions_of_the_same_package_that_are_named() -> None:
    rng = np.random.default_rng(0)
    made = Headers(corpus()).snippets(1, "total = round_up(early(1))\n", rng)
    assert made == "# shop/prices.py\ndef round_up(x):\n"
    assert Headers(corpus()).snippets(1, "total = 3\n", rng) == ""
