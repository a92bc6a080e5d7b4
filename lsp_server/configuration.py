"""The settings in force: the start's options, then what the client's configuration says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lsp_server.settings import FIELDS, START_ONLY, Settings, read_settings, read_values

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTION = "keystate"


class Configuration:
    """Settings over time; what is wrong with them is said once.

    A key that configuration named before and names no more has its default again; one that only
    the start's options named stands.
    """

    def __init__(self, forced: Mapping[str, Any]) -> None:
        """`forced` are the command line's settings; they win."""
        self.settings = Settings(**forced)
        self._forced = forced
        self._from_start: dict[str, Any] = {}
        self._told: set[str] = set()

    def start(self, options: object) -> list[str]:
        """Take the options of `initialize`; gives what is to be told."""
        self.settings, problems = read_settings(options, self._forced)
        if isinstance(options, dict):
            self._from_start, _ = read_values(options)
        return self._untold(problems)

    def change(self, section: Mapping[str, Any]) -> list[str]:
        """Take all that configuration says now; gives what is to be told.

        A value that does not fit leaves the one before it in force.
        """
        taken, problems = read_values(section)
        for key, name in FIELDS.items():
            if name in START_ONLY:
                if name in self._forced:
                    continue
                if name in taken and taken[name] != getattr(self.settings, name):
                    problems.append(
                        f"setting {key} is only taken from the initializationOptions of a start, "
                        "so that no workspace can change it; it stays as it was"
                    )
            elif key in section:
                self._from_start.pop(name, None)
                taken.setdefault(name, getattr(self.settings, name))
        changed = {
            name: value
            for name, value in (self._from_start | taken).items()
            if name not in START_ONLY and name not in self._forced
        }
        fixed = {name: getattr(self.settings, name) for name in START_ONLY | {*self._forced}}
        self.settings = replace(Settings(), **fixed, **changed)
        return self._untold(problems)

    def _untold(self, problems: list[str]) -> list[str]:
        new = [problem for problem in dict.fromkeys(problems) if problem not in self._told]
        self._told.update(new)
        return new


def section_of(settings: object) -> Mapping[str, Any] | None:
    """Our part of the settings that a client pushes: below our name, or bare; None if none is.

    Clients that keep many servers' settings in one object push all of it.
    """
    if not isinstance(settings, dict):
        return None
    ours = settings.get(SECTION)
    if isinstance(ours, dict):
        return ours
    return settings if settings.keys() & FIELDS.keys() else None
