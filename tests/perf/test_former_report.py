from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from perf.former_report import former_report

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_recorded_is_gone_on_with(tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    assert former_report(record, resume=True) == {}
    record.write_text('{"lengths": {"512": 1}}')
    assert former_report(record, resume=True) == {"lengths": {"512": 1}}
    assert former_report(record, resume=False) == {}


@pytest.mark.parametrize("content", ["[]", '{"a', "[" * 100_000])
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    record = tmp_path / "a.json"
    record.write_text(content)
    with pytest.raises(click.ClickException, match="without --resume it is made anew") as caught:
        former_report(record, resume=True)
    assert caught.value.message.startswith(str(record))
    assert "\n" not in caught.value.message
