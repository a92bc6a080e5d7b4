"""The server ends with the client's process, even if its stdin does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from lsp_server.parent_watch import watch
from perf.client import Client

pytestmark = pytest.mark.asyncio

TIMEOUT_S = 60
WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


async def test_told_once_when_it_ends() -> None:
    ended = asyncio.Event()
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as process:
        end = watch(asyncio.get_running_loop(), process.pid, ended.set)
        assert not ended.is_set()
        process.kill()
        await asyncio.wait_for(ended.wait(), TIMEOUT_S)
    end()
    end()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="counts descriptors as Linux has them")
async def test_nothing_is_left_of_a_watch_that_is_ended() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as process:
        during = len(os.listdir("/proc/self/fd"))
        end = watch(asyncio.get_running_loop(), process.pid, pytest.fail)
        assert len(os.listdir("/proc/self/fd")) == during + 1
        end()
        process.kill()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_process_that_is_not_to_be_found_is_not_watched() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    for pid in (process.pid, -1):
        watch(asyncio.get_running_loop(), pid, pytest.fail)()
    await asyncio.sleep(0)


async def test_the_server_ends_with_the_client() -> None:
    """Its stdin stays open: this process holds the other end."""

    async def check() -> int:
        async with await Client.start(stderr=subprocess.DEVNULL) as client:
            with subprocess.Popen(WAITS, stdin=subprocess.PIPE) as parent:
                params = {"processId": parent.pid, "capabilities": {}}
                await client.send("initialize", params)
                parent.kill()
            return await client.wait()

    assert await asyncio.wait_for(check(), TIMEOUT_S) == 1
