"""Suggestions against the text they are put into."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.trimming import trim


def check(before: str, model_text: str, after: str, expected: str) -> None:
    assert trim(before, model_text, after) == expected


@pytest.mark.parametrize("blank", ["", " ", "\t", "\n", "    \n\n  "])
@pytest.mark.parametrize("after", ["", ")", "\nx", " y"])
def test_blank_suggestions_are_empty(blank: str, after: str) -> None:
    check("x = ", blank, after, "")


def test_python_trailing_blanks() -> None:
    check("x = ", "1  ", "", "1")
    check("def f():", "\n    pass\n\n  ", "\n", "\n    pass")
    check("x = ", "1 ", "  \ny = 2", "1")
    check("f(", "x ", ")", "x")


def test_python_closers_are_not_doubled() -> None:
    check("f(", "x)", ")", "x")
    check("for i in range(", "10):", "):", "10")
    check("x = a[", "0]", "]", "0")
    check("f(g(", "x))", "))", "x")


def test_python_own_brackets_stay() -> None:
    check("f(", "g(x)", ")", "g(x)")
    check("f(", "g(x))", ")", "g(x)")
    check("f(g(", "x)", ")", "x)")
    check("f(", "(a, b)", ")", "(a, b)")


def test_python_what_the_model_closes_and_opens_again_fits() -> None:
    check('print("', 'hello", end="', '")', 'hello", end="')
    check("f(", "x) + g(y)", ")", "x) + g(y")
    check("f(", "x), g(z))", ")", "x")
    check("f(", "x) + 1", ")", "x")


def test_python_quotes() -> None:
    check('print("', 'hello")', '")', "hello")
    check("x = d['", "key']", "']", "key")
    check("x = d['", "key'", "']", "key")
    check('x = "', 'a\\"b"', '"', 'a\\"b')


def test_python_apostrophes_and_string_prefixes() -> None:
    check("f(\"don't ", 'do")', '")', "do")
    check("# don't f(", "g(x)", ")", "g(x)")
    check("x = (f'a {b", "}')", "}')", "")
    check("x = f'a', rb'", "b'", "'", "b")


def test_python_what_the_rest_of_the_line_is_already() -> None:
    check('    ""', '"', '"', "")
    check("    ''", "'", "'", "")
    check("f(g(x", ")", ")", ")")


def test_what_goes_on_is_not_ended() -> None:
    check("x = ", "a;", " + b;", "a")
    check("x = ", "a;", ", b;", "a")
    check("<p>", "&amp;", "</p>", "&amp;")
    check("for (", "let i = 0;", " i < n; i++)", "let i = 0;")


def test_python_docstring() -> None:
    check('    """', 'Say so."""', '"""', "Say so.")
    check("    '''", "Say so.", "'''", "Say so.")


def test_python_rest_of_line_in_words() -> None:
    check("f(", "a, b)", ", b)", "a")
    check("f(", "x, b)", "b)", "x, ")
    check("return ", "a + b", " + b", "a")
    check("x = ind", "ex", "x", "e")
    check("x = ", "a if b else c or d", "if b else c", "a ")


def test_python_a_partial_word_is_no_overlap() -> None:
    check("x = ", "foo", "o_bar", "foo")
    check("x = ", "one", "ends", "one")


def test_python_lines_below_are_not_repeated() -> None:
    check("    a = 1", "\n    b = 2\n    return a", "\n    return a\n", "\n    b = 2")
    check("    ", "return a", "\n\n    return a\n", "")
    check("    x", " = 1\n    y = 2", "\n    y = 2\n    z = 3\n", " = 1")


def test_python_a_line_like_the_one_below_at_another_depth_stays() -> None:
    check("    if a:", "\n        return a", "\n    return a\n", "\n        return a")


def test_python_ends_with_its_block() -> None:
    check("def f(x):", "\n    return x\n\n\ndef g():\n    pass", "\n", "\n    return x")
    check("    ", "return x\n\ndef g():", "", "return x")
    check("", "    return x\nprint(f(1))", "\n", "    return x")
    check("    x = 1", "\n    y = 2\nz = 3", "", "\n    y = 2")


def test_python_clauses_go_on_with_the_block() -> None:
    text = "\n    a()\nelse:\n    b()"
    check("if x:", text + "\nc()", "", text)
    check("try:", "\n    a()\nexcept E:\n    b()\nc()", "", "\n    a()\nexcept E:\n    b()")


def test_python_statements_beside_the_first_stay() -> None:
    check("    ", "a = 1\n    b = 2\n    return a", "\n", "a = 1\n    b = 2\n    return a")


def test_python_brackets_over_lines() -> None:
    check("x = [", "\n    1,\n    2,\n]\ny = 3", "", "\n    1,\n    2,\n]")
    check("x = [", "\n    1,\n]", "]", "\n    1,\n")
    check("    ", "1,\n    2,\n]", "\n]", "1,\n    2,")


def test_python_words_of_the_rest() -> None:
    check("copy(", "a, source, target)", "source, target, mode)", "a, ")
    check("see ``", "`python", "`python", "")
    check("x = ", "names + other", "other_names", "names + other")
    check("x = ", "first_name", "name_of(a)", "first_name")


def test_python_inside_a_word() -> None:
    check("    ret", "urn x", "urn y", "")
    check("    ret", "urns(x)", "urn y", "")
    check("fo", "o_", "bar", "o_")
    check("x = ", "foo(a, b)", "foo(a)", "")
    check("x = ", "foo_bar + ", "foo", "foo_bar + ")


def test_python_what_is_opened_twice() -> None:
    check('x = "', '"hello"', "", 'hello"')
    check('    """', '"""Say so."""', "", 'Say so."""')
    check("f(", "(a, b", ")", "a, b")
    check("f(", "(a, b", "))", "(a, b")
    check("f(", "(a, b),", "", "(a, b),")
    check('x = "a" + "', '"', "", '"')
    check("see `", "`name``", "", "`name``")


def test_python_the_line_below_however_it_was_begun() -> None:
    check("    re", "turn a", "\n    return a\n", "")
    check("call(", "name,", "\n    name,\n)", "")
    check("    ", "a = 1", "\n        a = 1\n", "a = 1")
    check("x = f(", "a)", "  # a\nx = f(a)\n", "a)")


def test_blanks_at_the_ends_of_inner_lines() -> None:
    check("def f():", "\n    a  \n\t\n    b", "", "\n    a\n\n    b")


def test_javascript_braces() -> None:
    check("if (x) {", "\n  a();\n}\nb();", "", "\n  a();\n}")
    check("if (x) {", "\n  a();\n}", "}", "\n  a();\n")
    check("if (x) {", "\n  a();\n}", "\n}\n", "\n  a();")
    check("if (x) {", "\n  a();\n} else {\n  b();\n}\nc();", "", "\n  a();\n} else {\n  b();\n}")


def test_javascript_callback() -> None:
    check("it('a', () => {", "\n  b();\n});\nit(", "})", "\n  b();\n")
    check("it('a', () => {", "\n  b();\n});", "\n});\n", "\n  b();")
    check("items.map((x) => ", "x.id)", ");", "x.id")


def test_typescript_template_string() -> None:
    check("const s = `a ${", "x}", "}`;", "x")
    check("const s = `", "it's`;", "`;", "it's")


def test_go_tabs() -> None:
    check(
        "\tif err != nil {", "\n\t\treturn err\n\t}\n\treturn nil\n}", "", "\n\t\treturn err\n\t}"
    )
    check("\tswitch x {", "\n\tcase 1:\n\t\ta()\n\t}\n}", "", "\n\tcase 1:\n\t\ta()\n\t}")
    check("\t", "return nil\n}\n\nfunc g() {", "\n}\n", "return nil")


def test_spaces_in_a_file_of_tabs() -> None:
    check("\tif x {", "\n        a()\n    }\n    b()", "", "\n        a()\n    }")


def test_rust() -> None:
    check("    let v = vec![", "1, 2];", "];", "1, 2")
    check("impl<'a> S<'a> {", "\n    fn f(&self) {}\n}\n\nfn g()", "", "\n    fn f(&self) {}\n}")
    check("    Some(", "x) => {", ") => {", "x")


def test_java() -> None:
    check("System.out.println(", '"a");', ");", '"a"')
    check(
        "    int f() {",
        "\n        return 1;\n    }\n\n    int g()",
        "",
        "\n        return 1;\n    }",
    )


def test_c() -> None:
    check('printf("', '%d\\n", x);', '");', "%d\\n")
    check("int a[] = {", "1, 2};", "};", "1, 2")
    check("x = y", ";", ";", "")


def test_cpp() -> None:
    check("class A {", "\npublic:\n  int x;\n};\nint y;", "", "\npublic:\n  int x;\n};")
    check("std::vector<", "int> v;", "> v;", "int")


@pytest.mark.parametrize("model_newline", ["\n", "\r\n"])
def test_crlf_documents_get_crlf(model_newline: str) -> None:
    text = "\n    a()\n    b()\n    c()".replace("\n", model_newline)
    assert trim("def f():", text, "\r\n    c()\r\n", "\r\n") == "\r\n    a()\r\n    b()"
    assert trim("def f():", text, "\n    c()\n", "\n") == "\n    a()\n    b()"


def test_a_huge_line_is_not_read_through() -> None:
    line = "f()" * 1_700_000
    start = time.process_time()
    check(line + "f(", "x)", ")", "x")
    check("f(", "x)", ")" + line, "x")
    assert time.process_time() - start < 1  # pairing 5 MB of brackets takes several


pieces = st.lists(st.sampled_from([*"()[]{}\"'`,;: \n", "    ", "x", "foo", "\\"]), max_size=12)
texts = pieces.map("".join)


@given(texts.map(lambda text: text.replace("\n", "")), texts, texts)
def test_an_answer_is_a_part_of_the_suggestion_and_ends_clean(
    before: str, suggestion: str, after: str
) -> None:
    answer = trim(before, suggestion, after)
    # But for what the text before the cursor has already, from the start.
    clean = re.sub(" +\n", "\n", suggestion)
    assert clean[:3].find(answer.rstrip()[:1]) >= 0
    assert answer.rstrip() in clean
    assert " \n" not in answer
    assert answer == "" or answer.strip()
    if not after.split("\n")[0].strip():
        assert answer == answer.rstrip()
