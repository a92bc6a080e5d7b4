"""What is told of a file above the window, language by language."""

from __future__ import annotations

import pytest

from lsp_server.documents import Document
from lsp_server.outline import MAX_IMPORT_CHARS, MAX_OUTLINE_CHARS, outline, words_of


def outline_of(language_id: str, text: str, words: str = "") -> str:
    """`|` is the window's left edge."""
    document = Document("file:///w/a", language_id, 1, text.replace("|", "", 1), path="a")
    return outline(document, text.index("|"), words_of(words))


def closed(lines: str) -> str:
    return f"{lines}...\n" if lines else ""


# A line that starts with `>` is one of the outline.
CASES = {
    "class and method": (
        "python",
        """\
>import os
>from a import (
>    b,
>)

LIMIT = 3

@decorated
>class Store(Base):
    '''Keeps.'''

>    def put(
>        self, key: str,
>    ) -> None:  # why
        def inner(): pass
        self.x = key

    @property
>    async def get(self):
        x = 1
|        y = 2
""",
    ),
    "between definitions": (
        "python",
        """\
>def first(a): return a

>class Other: pass

|def second(b):
    pass
""",
    ),
    "at a decorator": (
        "python",
        """\
>class A:
>    def one(self):
        pass

|    @wraps(one)
    def two(self):
        pass
""",
    ),
    "nested functions": (
        "python",
        """\
>def around(f):
>    def before():
        def unseen():
            pass

>    def wrapped(*args):
        x = 1
|        return f(*args)
""",
    ),
    "nothing above": ("python", "x = 1\ny = 2\n|def f():\n    pass\n"),
    "at the top": ("python", "|import os\n"),
    "no tree": ("plaintext", "import os\ndef f():\n|    pass\n"),
    "javascript": (
        "javascript",
        """\
>import { a } from './a';
>const fs = require('fs');
>const LIMIT = 3;

>export const twice = (x) => {
  const y = x;
  return y + x;
};

>class Store extends Base {
>  constructor(size) {
    this.size = size;
  }

>  async get(key) {
    const x = 1;
|    return x;
  }
}
""",
    ),
    "typescript": (
        "typescript",
        """\
>import type { A } from './a';

>interface Shape {
  area(): number;
}
>export type Id = string;
>enum Kind { One, Two }

>namespace inner {
  @Injectable()
>  export class Store<T> {
>    get(
>      key: string,
>    ): T {
|      return undefined;
    }
  }
}
""",
    ),
    "go": (
        "go",
        """\
package store

>import (
>	"fmt"
>	"os"
>)

>type Store struct {
	size int
}

>const limit = 3

>func (s *Store) Get(key string) (int, error) {
	x := 1
|	return x, nil
}
""",
    ),
    "rust": (
        "rust",
        """\
>use std::fmt;

>pub struct Store {
    size: usize,
}

#[derive(Debug)]
>pub enum Kind {
    One,
}

>impl Store {
    /// Makes one.
>    pub fn new(size: usize) -> Self {
        Store { size }
    }

    #[inline]
>    pub fn get(&self) -> usize
>    where
>        Self: Sized,
>    {
|        self.size
    }
}
""",
    ),
    "java": (
        "java",
        """\
package a.b;

>import java.util.List;

>public class Store {
    private int size;

>    Store(int size) {
        this.size = size;
    }

>    @Override
>    public List<String> get() throws IOException {
        int x = 1;
|        return null;
    }
}
""",
    ),
    "c": (
        "c",
        """\
#ifndef A_H
#define A_H
>#include <stdio.h>
>#include "a.h"
>#define TWICE(x) ((x) * 2)
>typedef struct store {
  int size;
} store_t;

>static int get(const store_t *s,
>               int at)
>{
  int x = 1;
|  return x;
}
#endif
""",
    ),
    "cpp": (
        "cpp",
        """\
>#include <vector>
>using std::vector;

>namespace a {
>template <typename T>
>class Store : public Base<T> {
 public:
>  explicit Store(int size) : size_(size) {}

>  T get(int at) const {
    int x = 1;
|    return x;
  }
};
}
""",
    ),
}


@pytest.mark.parametrize(("language_id", "text"), CASES.values(), ids=CASES)
def test_outlines(language_id: str, text: str) -> None:
    lines = text.splitlines(keepends=True)
    expected = closed("".join(line[1:] for line in lines if line.startswith(">")))
    plain = "".join(line.removeprefix(">") for line in lines)
    assert outline_of(language_id, plain) == expected
    # Line ends as prompts have them, whatever the document's.
    assert outline_of(language_id, plain.replace("\n", "\r\n")) == expected


def test_imports_of_names_in_the_window_come_first() -> None:
    imports = [f"from package_{n} import name_{n}\n" for n in range(50)]
    found = outline_of("python", "".join(imports) + "x = 1\n|", "name_40 and package_30")
    assert imports[30] in found
    assert imports[40] in found
    lines = found.splitlines(keepends=True)
    assert lines[:-1] == [line for line in imports if line in lines]
    assert MAX_IMPORT_CHARS - 40 < len(found) <= MAX_IMPORT_CHARS + len("...\n")


def test_an_import_that_is_too_long_is_cut_to_what_is_used() -> None:
    names = "".join(f"    name_{n},\n" for n in range(50))
    text = f"from package import (\n{names})\n|x = 1\n"
    found = outline_of("python", text, "name_7 + name_33")
    assert found == "from package import (\n    name_7,\n    name_33,\n)\n...\n"
    assert outline_of("python", text, "nothing") == ""


def test_the_nearest_definitions_fill_what_is_left() -> None:
    headers = [f"def function_{n}(argument):\n" for n in range(100)]
    above = "".join(f"{header}    return {n}\n\n" for n, header in enumerate(headers))
    found = outline_of("python", f"import os\n{above}class Last:\n    x = 1\n|    y = 2\n")
    lines = found.splitlines(keepends=True)
    assert (lines[0], *lines[-2:]) == ("import os\n", "class Last:\n", "...\n")
    n_shown = len(lines) - 3
    assert lines[1:-2] == headers[-n_shown:]
    assert MAX_OUTLINE_CHARS - 40 < len(found) <= MAX_OUTLINE_CHARS


def test_a_definition_too_long_to_tell_is_left_out() -> None:
    long = f"def long({', '.join(f'argument_{n}' for n in range(100))}):\n    pass\n"
    assert outline_of("python", f"class A: pass\n{long}|x = 1\n") == ""
    assert outline_of("python", f"{long}class A: pass\n|x = 1\n") == "class A: pass\n...\n"


def test_code_that_does_not_parse_still_gives_what_stands_above() -> None:
    text = "import os\n\ndef f(a):\n    x = (\n\n|class B:\n    def g(self:\n"
    assert "import os\n" in outline_of("python", text)


def test_deep_nesting_is_no_trouble() -> None:
    text = "import os\n" + "x = " + "[\n" * 3000 + "]\n" * 3000 + "|\n"
    assert outline_of("python", text) == "import os\n...\n"
