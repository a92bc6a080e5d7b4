from __future__ import annotations

import io
import subprocess
import sys

import pytest

from lsp_server.stdio import MessageWriter, framed, read_messages


@pytest.mark.parametrize(
    ("stream", "bodies"),
    [
        (b"Content-Length: 2\r\n\r\n{}", [b"{}"]),
        (b"Content-Length: 2\r\n\r\n{}content-length:3\r\n\r\nabc", [b"{}", b"abc"]),
        (b"Content-Type: x\r\nContent-Length: 2\r\nX: y\r\n\r\n{}", [b"{}"]),
        (b"Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\nx", [b"", b"x"]),
        (b"\r\n\r\nnoise\nContent-Length: 1\r\n\r\nx", [b"x"]),
        (b"Content-Length: many\r\n\r\nContent-Length: 1\r\n\r\nx", [b"x"]),
        (b"Content-Length: -5\r\n\r\nContent-Length: 1\r\n\r\nx", [b"x"]),
        (b"Content-Length: 9\r\n\r\ncut", []),
        (b"Content-Length: 9", []),
        (b"", []),
    ],
)
def test_read_messages(stream: bytes, bodies: list[bytes]) -> None:
    assert list(read_messages(io.BytesIO(stream))) == bodies


def test_a_line_without_end_is_skipped_in_bounded_pieces() -> None:
    stream = b"x" * 100_000 + b"\nContent-Length: 1\r\n\r\nx"
    assert list(read_messages(io.BytesIO(stream))) == [b"x"]


def test_a_message_that_is_too_long_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsp_server.stdio.MAX_BODY_BYTES", 100)
    monkeypatch.setattr("lsp_server.stdio.SKIPPED_BYTES", 7)
    stream = framed(b"y" * 101) + framed(b"x" * 100)
    assert list(read_messages(io.BytesIO(stream))) == [b"x" * 100]


def test_no_room_is_made_for_what_a_header_promises() -> None:
    stream = b"Content-Length: %d\r\n\r\nx" % 10**30
    assert list(read_messages(io.BytesIO(stream))) == []


def test_a_connection_that_breaks_is_one_that_ends() -> None:
    class Breaking(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise ConnectionResetError

    assert list(read_messages(Breaking(framed(b"x")))) == []


def test_stray_prints_do_not_reach_stdout() -> None:
    program = """
import os, subprocess, sys
from lsp_server.stdio import claim_stdio
stdin, stdout = claim_stdio()
print("stray")
sys.stdout.flush()
os.write(1, b"from C")
subprocess.run([sys.executable, "-c", "print('from a child')"])
stdout.write(sys.stdin.read().encode() + b"|" + stdin.read())
stdout.close()
"""
    done = subprocess.run([sys.executable, "-c", program], input=b"in", capture_output=True)
    assert done.stdout == b"|in"
    assert [word in done.stderr for word in (b"stray", b"from C", b"from a child")] == [True] * 3


def test_a_client_that_is_gone_is_noticed_once() -> None:
    class Gone(io.BytesIO):
        n_writes = 0

        def write(self, _data: object) -> int:
            self.n_writes += 1
            raise BrokenPipeError

    stream = Gone()
    writer = MessageWriter(stream)
    writer.write(b"1")
    writer.write(b"2")
    assert writer.is_broken
    assert stream.n_writes == 1
