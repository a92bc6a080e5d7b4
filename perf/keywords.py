"""The words of languages that no program can give another meaning."""

from __future__ import annotations

import keyword

_C = (
    "auto break case char const continue default do double else enum extern float for goto if"
    " inline int long register return short signed sizeof static struct switch typedef union"
    " unsigned void volatile while"
)
_JAVASCRIPT = (
    "async await break case catch class const continue debugger default delete do else export"
    " extends false finally for from function if import in instanceof let new null of return"
    " static super switch this throw true try typeof var void while with yield"
)
_TYPESCRIPT = (
    "abstract any as asserts boolean declare enum implements infer interface is keyof module"
    " namespace never number object private protected public readonly satisfies string symbol"
    " type undefined unique unknown"
)
_WORDS = {
    "c": _C,
    "cpp": _C + " bool catch class constexpr delete explicit export false friend mutable namespace"
    " new noexcept nullptr operator override private protected public template this throw true try"
    " typename using virtual",
    "go": "break case chan const continue default defer else fallthrough for func go goto if import"
    " interface map nil package range return select struct switch type var",
    "java": "abstract assert boolean break byte case catch char class const continue default do"
    " double else enum extends false final finally float for goto if implements import instanceof"
    " int interface long native new null package private protected public record return short"
    " static super switch synchronized this throw throws transient true try void volatile while",
    "javascript": _JAVASCRIPT,
    "rust": "as async await break const continue crate dyn else enum extern false fn for if impl in"
    " let loop match mod move mut pub ref return self Self static struct super trait true type"
    " unsafe use where while",
    "typescript": f"{_JAVASCRIPT} {_TYPESCRIPT}",
}
_ALIASES = {
    "javascriptreact": "javascript",
    "typescriptreact": "typescript",
}


def keywords_of(language_id: str) -> frozenset[str]:
    """A language's keywords by its LSP id; none for one that is not known."""
    if language_id == "python":
        return frozenset((*keyword.kwlist, *keyword.softkwlist)) - {"_"}
    return frozenset(_WORDS.get(_ALIASES.get(language_id, language_id), "").split())
