"""The extension, packaged as users get it, in a real VS Code with the real server and model.

`drive.mjs` takes VS Code through its steps once; each step is a test here. Screenshots and what
editor and server said to each other are left in `.cache/artefacts/vscode`, or in
`$KEYSTATE_ARTEFACTS/vscode`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.editors, pytest.mark.slow]

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
TIMEOUT_S = 900

STEPS = (
    "the extension installs and the server becomes ready",
    "ghost text appears while typing",
    "Tab inserts it, and undo restores",
    "a word is accepted, then the rest",
    "a line is accepted",
    "alternatives are looked through",
    "typing along keeps the rest",
    "typing something else drops it",
    "two suggestions in one line, and no doubled bracket",
    "a suggestion is made on demand",
    "the server is told where the cursor goes",
    "settings take effect",
    "the menu turns a language off and on",
    "snoozing holds back what appears by itself",
    "secrets are not told to the server",
    "a diff is quiet",
    "an untitled text gets suggestions",
    "a notebook's cell gets suggestions",
    "the page about latency opens",
    "a server that dies is started again",
    "a server that keeps ending says what helps",
    "a program that is no server can be replaced",
    "the server inside the extension is installed",
)


def required(path: Path, remedy: str) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is missing; {remedy} makes it")
    return path


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, dict[str, Any]]:
    """What came of each step."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node 20 is not installed")
    editors = Path(os.environ.get("KEYSTATE_EDITORS_DIR") or REPOSITORY / ".cache" / "editors")
    required(editors / "vscode" / "installed", "`bash tests/editors/vscode/install.sh`")
    vsix = required(REPOSITORY / "editor-clients" / "vscode" / "keystate.vsix", "`make vscode`")
    server = required(Path(sys.executable).with_name("keystate"), "`make test`")
    artefacts = Path(os.environ.get("KEYSTATE_ARTEFACTS") or REPOSITORY / ".cache" / "artefacts")
    artefacts /= "vscode"
    shutil.rmtree(artefacts, ignore_errors=True)
    artefacts.mkdir(parents=True)
    command = [node, HERE / "drive.mjs", editors / "vscode", vsix, server, artefacts]
    run = subprocess.run(
        [str(part) for part in command],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
    )
    (artefacts / "driver.log").write_text(run.stdout)
    results = artefacts / "outcomes.json"
    assert results.exists(), run.stdout
    return {step["name"]: step for step in json.loads(results.read_text())}


@pytest.mark.parametrize("step", STEPS)
def test_step(outcomes: Mapping[str, dict[str, Any]], step: str) -> None:
    assert step in outcomes, f"not reached; the driver's steps: {', '.join(outcomes)}"
    assert outcomes[step]["error"] is None, outcomes[step]["error"]


def test_every_step_is_a_test(outcomes: Mapping[str, dict[str, Any]]) -> None:
    assert list(outcomes) == list(STEPS)
