"""Numbers about suggestions, by day and language, in one file of the user's. No code is in it."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from engine.owner_file import owner_opener, write_owner_file
from lsp_server.file_lock import lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What is counted. Characters of accepted text: all of them, those that were looked for after 30
# seconds and 5 minutes, and those that were found.
NAMES = (
    "shown",
    "accepted",
    "partially_accepted",
    "accepted_chars",
    "checked_30s_chars",
    "retained_30s_chars",
    "checked_5min_chars",
    "retained_5min_chars",
)
MAX_DAYS = 90
# Of a day; further ones are counted as "other".
MAX_LANGUAGES = 32
MAX_LANGUAGE_CHARS = 40
# A longer file is not ours: 90 days of 32 languages are half of it.
MAX_FILE_BYTES = 2_000_000
# How long to wait for another window that writes its numbers.
LOCK_TRIES, LOCK_PAUSE_S = 20, 0.01

Counts = dict[str, int]
Days = dict[str, dict[str, Counts]]
"""Counts by day (2026-11-22) and language."""

logger = logging.getLogger(__name__)


class Statistics:
    """What this process has counted and not written yet."""

    def __init__(self) -> None:
        self._unsaved: Days = {}

    def add(self, language: str, **amounts: int) -> None:
        """Add to a language's numbers of today."""
        _add(self._unsaved, date.today().isoformat(), language, amounts)

    def take(self) -> Days:
        """Give and forget what was counted."""
        taken, self._unsaved = self._unsaved, {}
        return taken


def load_statistics(path: Path) -> Days:
    """What is in the file; nothing, once logged, where it cannot be read or is not ours."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not isinstance(content.get("days"), dict):
            raise ValueError("it has no days")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is not used: %s", path, error)
        return {}
    days: Days = {}
    for day, languages in content["days"].items():
        for language, counts in languages.items() if isinstance(languages, dict) else ():
            if isinstance(counts, dict) and _is_day(day):
                _add(days, day, language, {name: counts.get(name) for name in NAMES})
    return days


def save_statistics(path: Path, days: Days) -> bool:
    """Add numbers to those in the file; False, once logged, where that failed.

    Other windows may do the same: one at a time, and the file is replaced as a whole. It is the
    user's alone. May be called on any thread.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock")):
            merged = load_statistics(path)
            for day, languages in days.items():
                for language, counts in languages.items():
                    _add(merged, day, language, counts)
            newest = {day: merged[day] for day in sorted(merged)[-MAX_DAYS:]}
            write_owner_file(path, json.dumps({"version": 1, "days": newest}).encode())
    except OSError as error:
        logger.warning("statistics were not saved: %s", error)
        return False
    return True


def totals(days: Days) -> dict[str, Counts]:
    """Each language's sums over all days."""
    sums: dict[str, Counts] = {}
    for languages in days.values():
        for language, counts in languages.items():
            into = sums.setdefault(language, dict.fromkeys(NAMES, 0))
            for name in NAMES:
                into[name] += counts.get(name, 0)
    return sums


def _add(days: Days, day: str, language: str, amounts: dict[str, Any]) -> None:
    """Add amounts; what is no number, or has no name here, is left out."""
    languages = days.setdefault(day, {})
    language = language[:MAX_LANGUAGE_CHARS] or "other"
    if language not in languages and len(languages) >= MAX_LANGUAGES - 1:
        language = "other"
    counts = languages.setdefault(language, {})
    for name in NAMES:
        amount = amounts.get(name)
        if type(amount) is int and amount > 0:
            counts[name] = counts.get(name, 0) + amount


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file; OSError where another process does not let go of it."""
    with open(path, "a", opener=owner_opener, encoding="ascii") as file:
        for n_left in reversed(range(LOCK_TRIES)):
            try:
                lock(file)
                break
            except OSError:
                if n_left == 0:
                    raise
                time.sleep(LOCK_PAUSE_S)
        yield
