"""Finds the source code that is installed on this machine and may be trained on, by language."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LANGUAGES = ("python", "javascript", "typescript", "go", "rust")
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|0BSD|HPND|Unlicense)\b", re.IGNORECASE
)
NOT_PERMISSIVE = re.compile(r"GPL|MPL|Mozilla|Proprietary|Commercial", re.IGNORECASE)
# Debian's golang-1.19-src and rust-src.
GO_ROOT = Path("/usr/share/go-1.19")
RUST_ROOT = Path("/usr/lib/rustlib/src/rust")
RUST_FOLDERS = ("library", "compiler", "src/librustdoc", "src/bootstrap", "src/tools")
# npm packages that ship what their authors wrote; what others ship is compiled or bundled.
NPM_PACKAGES = {
    "javascript": (
        "eslint@10.15.0",
        "express@5.3.0",
        "fastify@5.12.8",
        "lodash@4.18.1",
        "mongoose@9.12.1",
        "svelte@5.57.3",
        "three@0.160.0",
        "undici@7.30.2",
        "webpack@5.112.2",
    ),
    "typescript": (
        "@apollo/server@5.5.1",
        "@blueprintjs/core@6.20.0",
        "@reduxjs/toolkit@2.14.0",
        "@tanstack/query-core@5.108.0",
        "@tanstack/react-query@5.108.0",
        "@tanstack/react-router@1.170.46",
        "@tanstack/router-core@1.171.39",
        "@trpc/server@11.25.2",
        "@xterm/xterm@6.0.0",
        "ajv@8.20.0",
        "effect@4.1.0",
        "puppeteer-core@24.43.1",
        "rxjs@7.8.2",
        "viem@2.57.20",
        "zod@4.6.7",
    ),
}
EXTENSIONS = {
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
    "typescript": (".ts", ".tsx", ".mts", ".cts"),
    "go": (".go",),
    "rust": (".rs",),
}
# Folders of other people's code, of parsers' test inputs, and of one intrinsic after the other.
SKIPPED_FOLDERS = frozenset({"node_modules", "testdata", "tests", "stdarch"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """One installed package whose code may be used; `files` are paths and names in the corpus."""

    name: str
    version: str
    licence: str
    files: tuple[tuple[Path, str], ...]


def sources_of(language: str, npm: Path) -> list[Source]:
    """Give the sources of one of `LANGUAGES`; `npm` is the node_modules of `NPM_PACKAGES`.

    Raises FileNotFoundError, which says what to install, where there is none.
    """
    if language == "python":
        return [standard_library(), *sorted(distributions(), key=lambda source: source.name)]
    if language == "go":
        return [go_library(GO_ROOT)]
    if language == "rust":
        return [rust_source(RUST_ROOT)]
    return [npm_package(npm, wanted, language) for wanted in NPM_PACKAGES[language]]


def library_root() -> Path:
    """Give the folder of the standard library that a virtual environment stands on."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(sys.base_prefix) / "lib" / version


def standard_library() -> Source:
    """Give the running Python's own library."""
    root = library_root()
    files = tuple(
        (path, str(path.relative_to(root)))
        for path in sorted(root.rglob("*.py"))
        if "site-packages" not in path.parts
    )
    version = ".".join(map(str, sys.version_info[:3]))
    return Source(name="python", version=version, licence="PSF-2.0", files=files)


def distributions() -> Iterator[Source]:
    """Yield the permissively licensed distributions of this environment and of the one below."""
    seen = set()
    path = [*sys.path, str(library_root() / "site-packages")]
    for distribution in metadata.distributions(path=path):
        name = distribution.metadata["Name"]
        if name is None or name.lower() in seen:
            continue
        seen.add(name.lower())
        licence = licence_of(distribution.metadata)
        if not is_permissive(licence):
            continue
        files = tuple(
            (Path(str(file.locate())), str(file))
            for file in sorted(distribution.files or [], key=str)
            if str(file).endswith(".py") and ".." not in file.parts
        )
        if files:
            yield Source(name=name, version=distribution.version, licence=licence[:80], files=files)


def licence_of(fields: metadata.PackageMetadata) -> str:
    """Give what a distribution's metadata says of its licence, in one short line."""
    classifiers = [
        classifier.rsplit("::", 1)[-1].strip()
        for classifier in fields.get_all("Classifier") or []
        if classifier.startswith("License ::")
    ]
    expression, old = (fields.get_all(key) or [""] for key in ("License-Expression", "License"))
    words = expression[0] or " / ".join(classifiers) or old[0]
    return " ".join((words or "").split())[:200]


def is_permissive(licence: str) -> bool:
    """Tell whether a licence, by its name, asks for no more than to be named."""
    return bool(PERMISSIVE.search(licence)) and not NOT_PERMISSIVE.search(licence)


def go_library(root: Path) -> Source:
    """Give Go's standard library and tools; names are import paths."""
    version = root.name.removeprefix("go-")
    files = written_files(root / "src", "go", root / "src")
    if not files:
        raise FileNotFoundError(f"no Go below {root}: install Debian's golang-1.19-src")
    return Source(
        name="go", version=version, licence="BSD-3-Clause, vendored also Apache-2.0", files=files
    )


def rust_source(root: Path) -> Source:
    """Give Rust's standard library, compiler and tools."""
    root = root.resolve()
    files = tuple(
        file for folder in RUST_FOLDERS for file in written_files(root / folder, "rust", root)
    )
    if not files:
        raise FileNotFoundError(f"no Rust below {root}: install Debian's rust-src")
    version = root.name.removeprefix("rustc-")
    return Source(name="rust", version=version, licence="MIT OR Apache-2.0", files=files)


def npm_package(modules: Path, wanted: str, language: str) -> Source:
    """Give a package's files in one language from a node_modules; `wanted` is name@version."""
    name, _, version = wanted.rpartition("@")
    try:
        manifest = json.loads((modules / name / "package.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        packages = " ".join(NPM_PACKAGES["javascript"] + NPM_PACKAGES["typescript"])
        raise FileNotFoundError(
            f"{modules / name} is missing: npm install --ignore-scripts --legacy-peer-deps "
            f"--prefix {modules.parent} {packages}"
        ) from error
    found, licence = manifest["version"], manifest["license"]
    if found != version or not is_permissive(licence):
        raise ValueError(f"{modules / name} is {found} ({licence}), expected {wanted}, permissive")
    return Source(
        name=name,
        version=version,
        licence=licence,
        files=written_files(modules / name, language, modules),
    )


def written_files(folder: Path, language: str, root: Path) -> tuple[tuple[Path, str], ...]:
    """Give a folder's files in one language, in a fixed order, with their paths below `root`."""
    return tuple(
        (path, path.relative_to(root).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.suffix in EXTENSIONS[language]
        and not path.name.endswith((".d.ts", ".d.mts", ".d.cts"))
        and SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts)
        and path.is_file()
    )
