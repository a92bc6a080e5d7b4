"""LSP's base protocol on standard input and output, and on whatever else carries bytes."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

# A header line is some twenty bytes long; what has no line end within this is not one.
MAX_HEADER_BYTES = 1024
# No message of an editor's is as long; room for one that says so would not be found.
MAX_BODY_BYTES = 2**28
SKIPPED_BYTES = 2**16


def claim_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Take both streams for the protocol alone, whatever else reads or prints in this process.

    From here on file descriptor 1 is standard error, so that a stray print, of a library in C
    too, cannot break into a message; file descriptor 0 is empty.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return os.fdopen(stdin, "rb"), os.fdopen(stdout, "wb")


def framed(body: bytes) -> bytes:
    """A message's body behind its header."""
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def read_messages(stream: BinaryIO) -> Iterator[bytes]:
    """The bodies of messages until the stream ends; blocks. What is no header is skipped.

    A connection that breaks is one that ends.
    """
    try:
        yield from _read_messages(stream)
    except OSError as error:
        logger.info("the other side is gone: %s", error)


def _read_messages(stream: BinaryIO) -> Iterator[bytes]:
    n_bytes: int | None = None
    while line := stream.readline(MAX_HEADER_BYTES):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            n_bytes = int(value) if value.strip().isdigit() else None
        elif not line.strip() and n_bytes is not None:
            if n_bytes > MAX_BODY_BYTES:
                logger.warning("a message of %d bytes is skipped", n_bytes)
                _skip(stream, n_bytes)
                n_bytes = None
                continue
            body = stream.read(n_bytes)
            if len(body) < n_bytes:
                return
            n_bytes = None
            yield body


def _skip(stream: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0 and (part := stream.read(min(n_bytes, SKIPPED_BYTES))):
        n_bytes -= len(part)


class MessageWriter:
    """What the protocol writes to; a client that is gone is noticed once and then ignored."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.is_broken = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            self.is_broken = True
            logger.warning("the client is gone: %s", error)

    def close(self) -> None:
        self.is_broken = True
