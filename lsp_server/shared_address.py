"""Where the engine that windows share is reached: one place a version and model.

A Unix socket with 0600 permissions in a folder with 0700; where there are none (Windows), a port
on the loopback interface and a file, for the user alone, that holds it and a token. The latter way
is tested on Linux only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.owner_file import owner_opener, write_owner_file
from lsp_server.file_lock import lock
from lsp_server.version import package_version

logger = logging.getLogger(__name__)

# Whether windows reach their host by loopback TCP.
USES_TCP = sys.platform == "win32" or not hasattr(socket, "AF_UNIX")
# macOS has the shortest addresses of Unix sockets: 104 bytes, with the zero that ends them.
MAX_SOCKET_BYTES = 103
TOKEN_BYTES = 32
# What a window has to say its token on loopback.
ADMIT_S = 5.0
CONNECT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class HostAddress:
    """The files of one host: its socket (or port and token), its lock, its log."""

    folder: Path
    name: str
    over_tcp: bool = USES_TCP

    @classmethod
    def of(cls, model: str | None, device: str, quantize: str | None = None) -> HostAddress:
        """The address for a model, as settings name it, on a device, as it is or quantized.

        Another version or another installation of this package has another. Raises ValueError if
        the folder for it is not the user's alone, OSError if none can be made.
        """
        what = (package_version(), str(Path(__file__).parent), model or "", device, quantize or "")
        name = hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]
        return cls(folder=_private_folder(f"{name}.sock"), name=name)

    @property
    def socket_path(self) -> Path:
        """The Unix socket; with TCP, the file that holds port and token."""
        return self.folder / f"{self.name}.{'port' if self.over_tcp else 'sock'}"

    @property
    def file_id(self) -> tuple[int, int] | None:
        """Which file stands at `socket_path`: that of one host is no other's while both live."""
        try:
            status = self.socket_path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @property
    def lock_path(self) -> Path:
        """Locked by the host that runs, whose process id it holds."""
        return self.folder / f"{self.name}.lock"

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    def claim(self) -> IO[str] | None:
        """Become the one host, until the file is closed; None if there is one already."""
        file = open(self.lock_path, "a+", opener=owner_opener, encoding="ascii")  # noqa: SIM115
        try:
            lock(file)
        except OSError:
            file.close()
            return None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file

    def listen(self) -> socket.socket:
        """Listen, in place of a host that is gone; to be called by the one that holds the lock."""
        self.socket_path.unlink(missing_ok=True)
        if self.over_tcp:
            return self._listen_on_loopback()
        assert sys.platform != "win32", "Windows goes by TCP"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.socket_path))
            # Nobody can connect before `listen`.
            self.socket_path.chmod(0o600)
            listener.listen()
        except OSError:
            listener.close()
            raise
        return listener

    def connect(self) -> socket.socket:
        """Connect to the host; OSError where there is none, or none that listens yet."""
        if not self.over_tcp:
            assert sys.platform != "win32", "Windows goes by TCP"
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self.socket_path))
            except OSError:
                connection.close()
                raise
            return connection
        port, token = self._port_and_token()
        connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S)
        connection.settimeout(None)
        connection.sendall(token.encode() + b"\n")
        return connection

    def admit(self, connection: socket.socket) -> bool:
        """Whether who connected may: over TCP, whoever sends the token first. Blocks for 5 s."""
        if not self.over_tcp:
            return True
        _, token = self._port_and_token()
        expected = token.encode() + b"\n"
        connection.settimeout(ADMIT_S)
        said = b""
        try:
            while len(said) < len(expected) and (part := connection.recv(1)):
                said += part
        except OSError:
            return False
        connection.settimeout(None)
        return hmac.compare_digest(said, expected)

    def _listen_on_loopback(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        found = {"port": listener.getsockname()[1], "token": secrets.token_hex(TOKEN_BYTES)}
        write_owner_file(self.socket_path, json.dumps(found).encode())
        return listener

    def _port_and_token(self) -> tuple[int, str]:
        found = json.loads(self.socket_path.read_text("ascii"))
        return found["port"], found["token"]


def _private_folder(socket_name: str) -> Path:
    """The folder of the user's hosts, made if it is not there; a socket in it can be reached.

    Where the one that the environment names cannot be used it is the one in /tmp.
    """
    if sys.platform == "win32":
        # The user's profile is closed to others already.
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        folder = Path(base) / "keystate" / "run"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    last_resort = Path("/tmp") / f"keystate-{os.getuid()}"
    folder = _runtime_folder() or last_resort
    if len(os.fsencode(folder / socket_name)) > MAX_SOCKET_BYTES and not USES_TCP:
        folder = last_resort
    if folder != last_resort:
        try:
            _make_private(folder)
            return folder
        except OSError as error:
            logger.warning("windows meet in %s: %s", last_resort, error)
    _make_private(last_resort)
    return last_resort


def _runtime_folder() -> Path | None:
    """What the environment names; a path that is not absolute means another place to each."""
    assert sys.platform != "win32", "it has none"
    runtime, temporary = os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", "")
    if os.path.isabs(runtime):
        return Path(runtime) / "keystate"
    return Path(temporary) / f"keystate-{os.getuid()}" if os.path.isabs(temporary) else None


def _make_private(folder: Path) -> None:
    """Make a folder for the user alone.

    ValueError if it is there and is not; OSError if it cannot be made or written into.
    """
    assert sys.platform != "win32", "it has no modes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_own or stat.S_IMODE(status.st_mode) & 0o077:
        raise ValueError(
            f"{folder} is open to others, expected a folder of yours with mode 0700:"
            " remove it, or set XDG_RUNTIME_DIR"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written into")
