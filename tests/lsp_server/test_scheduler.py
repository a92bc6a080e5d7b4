from __future__ import annotations

import asyncio
import contextlib

import pytest

from lsp_server.scheduler import Scheduler

pytestmark = pytest.mark.asyncio


async def answer(text: str, gate: asyncio.Event) -> str:
    await gate.wait()
    return text


async def test_the_newest_is_answered_and_older_ones_get_none() -> None:
    scheduler, gate = Scheduler(), asyncio.Event()
    tasks = [
        asyncio.ensure_future(scheduler.newest("a", answer(text, gate))) for text in ("1", "2", "3")
    ]
    await asyncio.wait(tasks[:2])
    gate.set()
    assert await asyncio.gather(*tasks) == [None, None, "3"]
    assert not scheduler.is_busy("a")


async def test_documents_do_not_disturb_each_other() -> None:
    scheduler, gate = Scheduler(), asyncio.Event()
    tasks = [asyncio.ensure_future(scheduler.newest(key, answer(key, gate))) for key in ("a", "b")]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == ["a", "b"]


async def test_superseded_from_outside() -> None:
    scheduler = Scheduler()
    task = asyncio.ensure_future(scheduler.newest("a", answer("1", asyncio.Event())))
    await asyncio.sleep(0)
    assert scheduler.is_busy("a")
    scheduler.supersede("a")
    assert await task is None


async def test_cancelling_the_caller_cancels_the_work() -> None:
    scheduler = Scheduler()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(scheduler.newest("a", work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert ended.is_set()
    assert not scheduler.is_busy("a")


async def test_an_error_reaches_the_caller() -> None:
    scheduler = Scheduler()

    async def work() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await scheduler.newest("a", work())
    assert not scheduler.is_busy("a")
