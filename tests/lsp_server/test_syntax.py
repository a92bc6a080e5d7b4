"""Languages, and where in a file definitions start."""

from __future__ import annotations

import tracemalloc

import pytest

from lsp_server import syntax
from lsp_server.documents import Document
from lsp_server.syntax import (
    LINES_PER_READ,
    SYNTAXES,
    definition_lines,
    language_id_of,
    line_comment_of,
    parse,
)


def check(language_id: str, text: str) -> None:
    """Definitions start on the lines that end in `<-`."""
    document = Document("file:///w/a", language_id, 1, text)
    marked = [n for n, line in enumerate(document.lines) if line.rstrip().endswith("<-")]
    assert document.tree is not None
    assert not document.tree.root_node.has_error
    last = len(document.lines) - 1
    assert definition_lines(document.tree, SYNTAXES[language_id], 0, last) == marked
    for first in range(last + 1):
        some = definition_lines(document.tree, SYNTAXES[language_id], first, first + 3)
        extra = set(some) - {n for n in marked if first <= n <= first + 3}
        # A comment above the range is not seen: its definition then starts below it.
        assert set(some) - extra == {n for n in marked if first <= n <= first + 3}
        assert len(extra) <= (first - 1 in marked or first - 2 in marked)


def test_python() -> None:
    check(
        "python",
        """import a

# about f <-
# more
@decorated
def f(x):
    y = [
        1,
    ]
    def inner():  # <-
        pass

# apart

class A:  # <-
    x: int = 1

    async def m(self):  # <-
        return 1  # not about n
    def n(self):  # <-
        pass

if x:
    def g():  # <-
        pass
""",
    )


def test_javascript() -> None:
    check(
        "javascript",
        """import a from "a";
const f = (x) => { // <-
  const local = 1;
};
/** Doc. <-
 */
export class A extends B {
  x = 1;
  m() { // <-
    return function () {
    };
  }
}
function* g() {} // <-
""",
    )


def test_typescript() -> None:
    check(
        "typescript",
        """interface I { // <-
  a: number;
}
type T = // <-
  | string;
export enum E { // <-
  A,
}
export abstract class A<T> { // <-
  m(a: T): void {} // <-
}
declare function f(): void; // <-
""",
    )


def test_tsx() -> None:
    check(
        "typescriptreact",
        """export const C = (p: P) => { // <-
  return (
    <div a={1}>
      {p.x}
    </div>
  );
};
""",
    )


def test_go() -> None:
    check(
        "go",
        """package a

// S is a struct. <-
type S struct {
	a int
}

func (s *S) m() { // <-
	type local struct{} // <-
	x := 1
}

var x = 1 // <-
""",
    )


def test_rust() -> None:
    check(
        "rust",
        """use a::b;
/// Doc. <-
#[derive(Debug)]
pub struct S {
    a: u8,
}
impl S { // <-
    fn m(&self) { // <-
        let x = 1;
    }
}
/// Apart.

mod tests { // <-
    #[test] // <-
    fn t() {}
}
""",
    )


def test_java() -> None:
    check(
        "java",
        """package a;
// Doc. <-
@A
public class X {
    int a = 1;
    @Override // <-
    int f() {
        return 1;
    }
    X() { } // <-
}
""",
    )


def test_c() -> None:
    check(
        "c",
        """#include <a.h>
struct s { // <-
    int a;
};
typedef struct { // <-
    int b;
} t;
static int f(int a) // <-
{
    return a;
}
int y;
""",
    )


def test_cpp() -> None:
    check(
        "cpp",
        """namespace n { // <-
template <typename T> // <-
class A {
    int f() { return 1; } // <-
};
}
""",
    )


@pytest.mark.parametrize(
    ("path", "language_id"),
    [
        ("a.py", "python"),
        ("src/A.TSX", "typescriptreact"),
        ("C:\\src\\main.rs", "rust"),
        ("a.b.hpp", "cpp"),
        ("Makefile", "plaintext"),
        (".py", "plaintext"),
    ],
)
def test_language_of_a_path(path: str, language_id: str) -> None:
    assert language_id_of(path) == language_id


def test_every_known_extension_has_a_syntax() -> None:
    extensions = ["py", "js", "jsx", "ts", "tsx", "go", "rs", "java", "c", "cc"]
    assert {language_id_of(f"a.{extension}") for extension in extensions} == set(SYNTAXES)


@pytest.mark.parametrize("language_id", sorted(SYNTAXES))
def test_kinds_exist_in_the_grammar(language_id: str) -> None:
    known = SYNTAXES[language_id]
    language = syntax._language(known.package, known.factory)
    assert language is not None
    kinds = {language.node_kind_for_id(n) for n in range(language.node_kind_count)}
    used = (
        known.definitions
        | known.top_level_definitions
        | known.wrappers
        | known.leading
        | known.comments
        | known.blocks
        | known.docstrings
    )
    assert used <= kinds


def test_comment_syntax() -> None:
    assert line_comment_of("python") == "#"
    assert line_comment_of("rust") == "//"
    assert line_comment_of("brainfuck") == "#"


def test_a_missing_grammar_means_no_tree(caplog: pytest.LogCaptureFixture) -> None:
    missing = syntax.Syntax(package="tree_sitter_no_such_language", definitions=frozenset())
    assert parse(missing, ["x = 1\n", ""]) is None
    assert parse(missing, ["x = 1\n", ""]) is None
    assert len(caplog.records) == 1


def test_a_parse_out_of_time_means_no_tree() -> None:
    lines = ["x = 1\n"] * 5000 + [""]
    assert parse(SYNTAXES["python"], lines) is not None
    assert parse(SYNTAXES["python"], lines, None, -1.0) is None


def test_a_parse_leaves_nothing_of_the_text_behind() -> None:
    lines = [f"value_{n} = {n}\n" for n in range(40 * LINES_PER_READ)] + [""]
    n_bytes = sum(map(len, lines))
    parse(SYNTAXES["python"], lines)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            parse(SYNTAXES["python"], lines)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < n_bytes


def test_definitions_in_deeply_nested_text() -> None:
    document = Document("file:///w/a.py", "python", 1, "(\n" * 5000 + "def f():\n    pass\n")
    assert document.tree is not None
    lines = definition_lines(document.tree, SYNTAXES["python"], 0, 5002)
    assert lines in ([], [5000])
