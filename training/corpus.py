"""Builds the training corpus from Python source that is installed on this machine.

`python -m training.corpus OUT` takes the standard library and every installed distribution with a
permissive licence, drops duplicates, holds whole packages out, and writes OUT/train.npz,
OUT/heldout.npz and OUT/sources.json (packages, versions, licences, bytes).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from rich.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|0BSD|HPND|Unlicense)\b", re.IGNORECASE
)
NOT_PERMISSIVE = re.compile(r"GPL|MPL|Mozilla|Proprietary|Commercial", re.IGNORECASE)
# Whole packages, so that no file of theirs is ever trained on.
HELD_OUT = frozenset(
    [
        "rich",
        "click",
        "flask",
        "werkzeug",
        "jinja2",
        "pygls",
        "lsprotocol",
        "huggingface_hub",
        "trio",
        "keystate",
    ]
)
MIN_BYTES, MAX_BYTES = 400, 200_000
# A file most of whose longer lines were seen before is a copy with small changes.
MAX_SEEN_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class Source:
    """One installed distribution whose code may be used."""

    name: str
    version: str
    licence: str
    files: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Many files of source text in one array; `names[i]` is the path below its package's root."""

    text: np.ndarray
    offsets: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        """Give the number of files."""
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        """Give the text of one file."""
        return bytes(self.text[self.offsets[index] : self.offsets[index + 1]]).decode("utf-8")

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            names = bytes(arrays["names"]).decode("utf-8").split("\n")
            return cls(arrays["text"], arrays["offsets"], names)

    def save(self, path: Path) -> None:
        """Write the corpus compressed."""
        names = np.frombuffer("\n".join(self.names).encode("utf-8"), dtype=np.uint8)
        np.savez_compressed(path, text=self.text, offsets=self.offsets, names=names)


def pack(files: list[tuple[str, str]]) -> Corpus:
    """Join (name, text) pairs into a corpus."""
    blobs = [text.encode("utf-8") for _, text in files]
    offsets = np.cumsum([0, *(len(blob) for blob in blobs)], dtype=np.int64)
    text = np.frombuffer(b"".join(blobs), dtype=np.uint8)
    return Corpus(text, offsets, [name for name, _ in files])


def calibration_half(name: str) -> bool:
    """Tell whether a held-out file is one to calibrate on; results come from the others alone."""
    return hashlib.sha256(name.encode("utf-8")).digest()[0] % 2 == 0


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
        if not PERMISSIVE.search(licence) or NOT_PERMISSIVE.search(licence):
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


def usable(path: Path) -> str | None:
    """Give a file's text if it is source that a person would have typed."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not MIN_BYTES <= len(raw) <= MAX_BYTES or "\0" in text:
        return None
    lines = text.splitlines()
    if max(map(len, lines)) > 400 or len(text) > 60 * len(lines):
        return None
    head = text[:600].lower()
    if "auto-generated" in head or "autogenerated" in head or "do not edit" in head:
        return None
    return text.replace("\r\n", "\n")


def unseen(text: str, lines_seen: set[int], files_seen: set[bytes]) -> bool:
    """Tell whether a file is new, and remember it and its longer lines."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    if digest in files_seen:
        return False
    files_seen.add(digest)
    lines = [zlib.crc32(s.encode("utf-8")) for s in map(str.strip, text.split("\n")) if len(s) > 20]
    share = sum(line in lines_seen for line in lines) / max(len(lines), 1)
    lines_seen.update(lines)
    return share < MAX_SEEN_SHARE


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write the corpus to the folder OUT."""
    out.mkdir(parents=True, exist_ok=True)
    lines_seen: set[int] = set()
    files_seen: set[bytes] = set()
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "heldout": []}
    table = []
    sources = [standard_library(), *sorted(distributions(), key=lambda source: source.name)]
    for source in track(sources, description="reading"):
        n_bytes = dict.fromkeys(splits, 0)
        for path, name in source.files:
            # Any part of the path: pip carries a copy of rich, for one.
            split = "train" if HELD_OUT.isdisjoint(name.lower().split("/")) else "heldout"
            text = usable(path)
            if text is not None and unseen(text, lines_seen, files_seen):
                splits[split].append((name, text))
                n_bytes[split] += len(text)
        table.append(
            {
                "name": source.name,
                "version": source.version,
                "licence": source.licence,
                "train_bytes": n_bytes["train"],
                "heldout_bytes": n_bytes["heldout"],
            }
        )
    for split, files in splits.items():
        pack(files).save(out / f"{split}.npz")
        click.echo(f"{split}: {len(files)} files, {sum(len(t) for _, t in files) / 1e6:.1f} MB")
    (out / "sources.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
