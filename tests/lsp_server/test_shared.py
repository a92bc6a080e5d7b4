"""Windows and the host that they share: its place, its life, and that nothing is lost with it."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

import pytest

from engine.engine import Engine
from engine.request import Completion, CompletionRequest
from engine.tokenizer import Tokenizer
from engine.warm_restart import SavedStates
from lsp_server.documents import Document, Position
from lsp_server.features.inline_completion import N_ALTERNATIVES
from lsp_server.server import Server
from lsp_server.settings import Settings
from lsp_server.shared_address import HostAddress
from lsp_server.shared_host import MAX_UNREAD_BYTES, SharedHost, SocketWriter
from lsp_server.shared_window import Window, reach
from lsp_server.stdio import framed, read_messages
from lsp_server.suggestions import Suggester
from lsp_server.window_engine import WindowEngine
from perf.client import INVOKED, SERVER_COMMAND, Client
from tests.lsp_server.conftest import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.mamba2 import Mamba2

ROOT = Path("/workspace")
TEXT = "import os\n\n\ndef total(items):\n    result = 0\n    for item in items:\n        # \n"
LIMIT_S = 120.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="goes by Unix sockets")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets, whose addresses are short; whatever host is left there is ended."""
    folder = Path(tempfile.mkdtemp(prefix="ks"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield folder
    for lock in folder.glob("keystate/*.lock"):
        address = HostAddress(folder=lock.parent, name=lock.stem)
        free = address.claim()
        if free is None:
            os.kill(host_pid(folder), signal.SIGKILL)
        else:
            free.close()
    shutil.rmtree(folder)


@pytest.fixture
def address(runtime: Path) -> HostAddress:
    return HostAddress.of(None, "auto")


def host_pid(runtime: Path) -> int:
    (lock,) = runtime.glob("keystate/*.lock")
    return int(lock.read_text())


def uri_of(name: str) -> str:
    return f"{ROOT.as_uri()}/{name}"


class TestAddress:
    def test_only_the_user_gets_in(self, address: HostAddress) -> None:
        with address.listen():
            assert stat.S_IMODE(address.socket_path.stat().st_mode) == 0o600
            assert stat.S_ISSOCK(address.socket_path.stat().st_mode)
        assert stat.S_IMODE(address.folder.stat().st_mode) == 0o700

    def test_a_folder_that_others_can_enter_is_refused(self, runtime: Path) -> None:
        (runtime / "keystate").mkdir(mode=0o700)
        (runtime / "keystate").chmod(0o750)
        with pytest.raises(ValueError, match="0700"):
            HostAddress.of(None, "auto")

    def test_a_link_to_a_folder_is_refused(self, runtime: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)
        (runtime / "keystate").symlink_to(tmp_path)
        with pytest.raises(ValueError, match="0700"):
            HostAddress.of(None, "auto")

    def test_one_a_model_a_device_and_a_version(
        self, address: HostAddress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert HostAddress.of(None, "auto") == address
        names = {address.name, HostAddress.of("m", "auto").name, HostAddress.of(None, "cpu").name}
        monkeypatch.setattr("lsp_server.shared_address.package_version", lambda: "99")
        assert len(names | {HostAddress.of(None, "auto").name}) == 4

    @pytest.mark.usefixtures("runtime")
    def test_a_long_way_to_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
        address = HostAddress.of("a model that no test runs", "auto")
        with address.listen():
            address.connect().close()
        address.socket_path.unlink()

    @pytest.mark.parametrize("obstacle", ["file", "nowhere", "unwritable", "relative"])
    def test_a_place_that_cannot_be_used(
        self, runtime: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
    ) -> None:
        monkeypatch.delenv("TMPDIR", raising=False)
        monkeypatch.chdir(runtime)
        place = {"file": str(runtime / "file"), "nowhere": "/proc/nope", "relative": "here"}
        if obstacle == "file":
            (runtime / "file").touch()
        elif obstacle == "unwritable":
            (runtime / "keystate").mkdir(mode=0o700)
            may = os.access

            # Nothing is refused to a user who may do everything.
            def refuse(path: Path, mode: int) -> bool:
                return not path.is_relative_to(runtime) and may(path, mode)

            monkeypatch.setattr("os.access", refuse)
        monkeypatch.setenv("XDG_RUNTIME_DIR", place.get(obstacle, str(runtime)))
        address = HostAddress.of("a model that no test runs", "auto")
        assert address.folder == Path(f"/tmp/keystate-{os.getuid()}")
        assert stat.S_IMODE(address.folder.stat().st_mode) == 0o700
        with address.listen():
            address.connect().close()
        address.socket_path.unlink()
        assert not (runtime / "here").exists()

    def test_one_host_claims_it(self, address: HostAddress) -> None:
        lock = address.claim()
        assert lock is not None
        assert address.claim() is None
        assert host_pid(address.folder.parent) == os.getpid()
        lock.close()
        again = address.claim()
        assert again is not None
        again.close()

    def test_what_a_dead_host_left_is_in_nobodys_way(self, address: HostAddress) -> None:
        address.listen().close()
        with pytest.raises(OSError, match=r"refused"):
            address.connect()
        with address.listen():
            address.connect().close()

    def test_tcp_asks_for_the_token(self, address: HostAddress) -> None:
        address = replace(address, over_tcp=True)
        with address.listen() as listener:
            assert listener.getsockname()[0] == "127.0.0.1"
            assert stat.S_IMODE(address.socket_path.stat().st_mode) == 0o600
            with address.connect() as window, listener.accept()[0] as connection:
                assert address.admit(connection)
                window.sendall(b"!")
                assert connection.recv(1) == b"!"
            port = json.loads(address.socket_path.read_text())["port"]
            with (
                socket.create_connection(("127.0.0.1", port)) as stranger,
                listener.accept()[0] as connection,
            ):
                stranger.sendall(b"0" * 64 + b"\n")
                assert not address.admit(connection)


class FakeHost:
    """Stands in for a starting host's process: it came to an end, or it did not."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code


class TestReach:
    def test_a_host_is_started_once(self, address: HostAddress) -> None:
        listeners = []

        def start() -> Any:
            listeners.append(address.listen())
            return FakeHost(None)

        for _ in range(2):
            reach(address, start).close()
        assert len(listeners) == 1
        listeners[0].close()

    def test_another_when_the_one_that_held_the_lock_was_about_to_end(
        self, address: HostAddress
    ) -> None:
        listeners: list[socket.socket] = []

        def start() -> Any:
            if n_started.pop():
                listeners.append(address.listen())
            return FakeHost(0)

        n_started = [1, 0]
        reach(address, start).close()
        assert len(listeners) == 1
        listeners[0].close()

    def test_one_that_fails_is_told_with_its_log(self, address: HostAddress) -> None:
        with pytest.raises(OSError, match=str(address.log_path)):
            reach(address, lambda: cast("Any", FakeHost(1)))


class Noted:
    """Stands in for an engine: notes what is asked of it."""

    name = "noted"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, bool]] = []
        self.forgotten: list[str] = []
        self.n_cancelled = 0

    def submit(self, request: CompletionRequest, _on_done: object) -> Noted:
        self.asked.append((request.document, None, request.may_be_saved))
        return self

    def prepare(self, request: CompletionRequest, *, key: str | None = None) -> None:
        self.asked.append((request.document, key, request.may_be_saved))

    def is_preparing(self, document: str) -> bool:
        return (document, None, True) in self.asked

    def cancel(self) -> None:
        self.n_cancelled += 1

    def forget(self, document: str) -> None:
        self.forgotten.append(document)

    def counters(self) -> dict[str, int]:
        return {"asked": len(self.asked)}


def asking(document: str) -> CompletionRequest:
    return CompletionRequest(document=document, header="", prefix="x", suffix="")


class TestWindowEngine:
    def window(self, noted: Noted, n: int, may_save: bool = True) -> WindowEngine:
        engine = cast("Engine", noted)
        return WindowEngine(engine, n, may_save=may_save, gone=threading.Event())

    def test_documents_of_two_windows_are_two(self) -> None:
        noted = Noted()
        one, two = self.window(noted, 1), self.window(noted, 2, may_save=False)
        one.submit(asking("a"), lambda _: None)
        two.submit(asking("a"), lambda _: None)
        one.prepare(asking("a"), key="a#fresh")
        assert noted.asked == [
            ("1:a", None, True),
            ("2:a", None, False),
            ("1:a", "1:a#fresh", True),
        ]
        assert one.is_preparing("a")
        assert not two.is_preparing("a")
        one.forget("a")
        assert noted.forgotten == ["1:a"]
        assert (one.name, one.counters()) == ("noted", {"asked": 3})

    def test_a_window_that_leaves_takes_its_own_along(self) -> None:
        noted = Noted()
        one, two = self.window(noted, 1), self.window(noted, 2)
        for document in ("a", "b"):
            one.submit(asking(document), lambda _: None)
        two.submit(asking("a"), lambda _: None)
        one.close()
        assert noted.n_cancelled == 2
        assert sorted(noted.forgotten) == ["1:a", "1:b"]
        # What was still to come of it.
        one.prepare(asking("a"))
        assert len(noted.asked) == 3


def _tell_cost(answered: SimpleQueue[int], done: Completion) -> None:
    answered.put(done.n_recomputed)


class TestSavedStates:
    """States are written while the engine lives, so that they outlast a crash."""

    def engine(
        self, tiny_model: Callable[..., Mamba2], directory: Path, saved: SavedStates
    ) -> Engine:
        return Engine(tiny_model(vocab_size=8192), Tokenizer.load(directory), saved=saved)

    def test_a_killed_engines_states_come_back(
        self, tiny_model: Callable[..., Mamba2], model_directory: Path, tmp_path: Path
    ) -> None:
        written: SimpleQueue[int] = SimpleQueue()

        class Told(SavedStates):
            def save(self, *arguments: Any) -> int:
                n = super().save(*arguments)
                written.put(n)
                return n

        request = CompletionRequest(
            document="a", header="", prefix=TEXT * 5, suffix="", explicit=True, max_tokens=2
        )
        read: list[int] = []
        engines = []
        for _ in range(2):
            engine = self.engine(tiny_model, model_directory, Told(tmp_path, "one"))
            engines.append(engine)
            engine.start()
            answered: SimpleQueue[int] = SimpleQueue()
            engine.submit(request, partial(_tell_cost, answered))
            read.append(answered.get(timeout=60))
            engine.save_soon()
            # Not closed: what comes now is from the disk.
            assert written.get(timeout=60) > 0
        assert read[0] > 100
        assert read[1] < 20
        for engine in engines:
            engine.close()

    def test_without_a_folder_nothing_is_due(
        self, tiny_model: Callable[..., Mamba2], model_directory: Path
    ) -> None:
        engine = Engine(tiny_model(vocab_size=8192), Tokenizer.load(model_directory))
        engine.start()
        engine.save_soon()
        answered: SimpleQueue[str] = SimpleQueue()
        engine.submit(asking("a"), lambda done: answered.put(done.stop))
        assert answered.get(timeout=60) != "error"
        engine.close()


def test_a_window_that_does_not_read_holds_up_nobody() -> None:
    ours, window = socket.socketpair()
    with ours, window, SocketWriter(ours) as writer:
        # More than that goes into no socket's buffer.
        for _ in range(2):
            writer.write(b"x" * (MAX_UNREAD_BYTES // 2))
        with pytest.raises(BrokenPipeError):
            writer.write(b"x" * (MAX_UNREAD_BYTES // 2))
        # It is given up: whoever reads from it is told.
        assert ours.recv(1) == b""


class TestHost:
    pytestmark = pytest.mark.asyncio

    def host(self, address: HostAddress, idle_s: float) -> SharedHost:
        def load(_settings: Settings, _on_progress: Callable[[str, float], None]) -> Suggester:
            raise ValueError("no model here")

        return SharedHost(address, {}, idle_s, lambda: load)

    async def test_ends_when_nobody_comes(self, address: HostAddress) -> None:
        await asyncio.wait_for(self.host(address, 0.01).run(), LIMIT_S)
        assert not address.socket_path.exists()

    async def test_leaves_another_host_s_socket_alone(self, address: HostAddress) -> None:
        first = self.host(address, LIMIT_S)
        ending = asyncio.ensure_future(first.run())
        await asyncio.sleep(0)
        # As cleaners of temporary folders do.
        address.socket_path.unlink()
        second = self.host(address, LIMIT_S)
        living = asyncio.ensure_future(second.run())
        await asyncio.sleep(0)
        first.stop()
        await asyncio.wait_for(ending, LIMIT_S)
        address.connect().close()
        second.stop()
        await asyncio.wait_for(living, LIMIT_S)
        assert not address.socket_path.exists()

    async def test_one_that_cannot_be_let_in_at_once_waits(
        self,
        address: HostAddress,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        loop = asyncio.get_running_loop()
        accept, problems = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")] * 2

        async def scarce(listener: socket.socket) -> Any:
            if problems:
                raise problems.pop()
            return await accept(listener)

        monkeypatch.setattr(loop, "sock_accept", scarce)
        monkeypatch.setattr("lsp_server.shared_host.ACCEPT_AGAIN_S", 0.0)
        host = self.host(address, LIMIT_S)
        living = asyncio.ensure_future(host.run())
        await asyncio.sleep(0)
        with address.connect() as window:
            message = {"jsonrpc": "2.0", "id": 1, "method": "keystate/status", "params": {}}
            window.sendall(framed(json.dumps(message).encode()))
            reading = asyncio.to_thread(window.makefile("rb").readline)
            assert (await asyncio.wait_for(reading, LIMIT_S)).startswith(b"Content-Length")
        assert not problems
        assert caplog.text.count("Too many open files") == 2
        host.stop()
        await asyncio.wait_for(living, LIMIT_S)

    async def test_ends_after_its_last_window(self, address: HostAddress) -> None:
        host = self.host(address, 0.2)
        listening = asyncio.ensure_future(host.run())
        await asyncio.sleep(0)
        with address.connect() as window:
            message = {"jsonrpc": "2.0", "id": 1, "method": "keystate/status", "params": {}}
            window.sendall(framed(json.dumps(message).encode()))
            answer = await asyncio.to_thread(window.makefile("rb").readline)
            assert answer.startswith(b"Content-Length")
            # Longer than it would wait for a window.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(listening), 0.5)
        await asyncio.wait_for(listening, LIMIT_S)
        assert not address.socket_path.exists()

    @pytest.mark.parametrize("leaves", ["at once", "while loading", "in the end"])
    async def test_nothing_is_kept_of_a_window_that_left(
        self,
        address: HostAddress,
        stepped: Suggester,
        monkeypatch: pytest.MonkeyPatch,
        leaves: str,
    ) -> None:
        servers, may_load = [], threading.Event()

        class Noted(Server):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                servers.append(weakref.ref(self))

        def load(*_: object) -> Suggester:
            assert may_load.wait(LIMIT_S)
            return stepped

        monkeypatch.setattr("lsp_server.shared_host.Server", Noted)
        host = SharedHost(address, {}, LIMIT_S, lambda: load)
        living = asyncio.ensure_future(host.run())
        await asyncio.sleep(0)

        def use() -> None:
            with address.connect() as window, window.makefile("rb") as answers:
                if leaves == "at once":
                    return
                window.sendall(framed(_asked(1, "initialize", {"capabilities": {}})))
                next(read_messages(answers))
                if leaves == "in the end":
                    may_load.set()
                    window.sendall(framed(_asked(2, "shutdown", None)))
                    next(read_messages(answers))

        for _ in range(3):
            await asyncio.wait_for(asyncio.to_thread(use), LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            while len(servers) < 3 or host._windows:
                await _turn()
        may_load.set()
        for thread in threading.enumerate():
            if thread.name == "loader":
                await asyncio.to_thread(thread.join, LIMIT_S)
                assert not thread.is_alive()
        # What it told the loop.
        await _turn()
        gc.collect()
        assert [server() for server in servers] == [None] * 3
        assert not host._engines
        host.stop()
        await asyncio.wait_for(living, LIMIT_S)


def _asked(request_id: int, method: str, params: object) -> bytes:
    message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return json.dumps(message).encode()


async def _turn() -> None:
    """Let the loop do what waits, and threads what it has begun."""
    await asyncio.to_thread(lambda: None)


class TestWindow:
    """The pipe alone, with a host that a test plays."""

    def window(
        self, address: HostAddress, play: Callable[[socket.socket], None], pid: int | None = None
    ) -> tuple[int, list[dict[str, Any]], int]:
        """Pipe `initialize` to hosts; gives the exit code, what the editor read, and how often."""
        read_end, write_end = os.pipe()
        out_read, out_write = os.pipe()
        n_hosts = 0
        with address.listen() as listener:

            def serve() -> None:
                nonlocal n_hosts
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    n_hosts += 1
                    with connection:
                        play(connection)

            threading.Thread(target=serve, daemon=True).start()
            with os.fdopen(out_write, "wb") as stdout, os.fdopen(write_end, "wb") as editor:
                message = {"jsonrpc": "2.0", "id": 2, "method": "initialize"}
                message |= {"params": {"processId": pid}}
                editor.write(framed(json.dumps(message).encode()))
                editor.flush()
                chosen = (None, "auto", None)
                window = Window(chosen, address, stdout, lambda *_: pytest.fail("there is a host"))
                code = window.run(read_messages(os.fdopen(read_end, "rb")))
            listener.shutdown(socket.SHUT_RDWR)
        with os.fdopen(out_read, "rb") as stream:
            return code, [json.loads(body) for body in read_messages(stream)], n_hosts

    def test_a_host_that_dies_again_and_again_is_given_up(self, address: HostAddress) -> None:
        code, told, n_hosts = self.window(address, lambda connection: None)
        assert (code, told, n_hosts) == (1, [], 5)

    def test_an_editor_that_is_gone_needs_no_other_host(
        self, address: HostAddress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What is wrong with the place was said by who chose it.
        monkeypatch.setattr(HostAddress, "of", lambda *_: pytest.fail("it is known"))
        editor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

        def play(connection: socket.socket) -> None:
            # The server noticed, and left.
            next(read_messages(connection.makefile("rb")))
            editor.kill()
            editor.communicate(timeout=60)

        code, _, n_hosts = self.window(address, play, editor.pid)
        assert (code, n_hosts) == (1, 1)

    def test_initialize_is_answered_by_the_host_that_lives(self, address: HostAddress) -> None:
        heard: list[list[dict[str, Any]]] = []

        def play(connection: socket.socket) -> None:
            stream = connection.makefile("rb")
            heard.append([json.loads(next(read_messages(stream)))])
            if len(heard) == 3:
                answer = {"jsonrpc": "2.0", "id": 2, "result": {"n": len(heard)}}
                connection.sendall(framed(json.dumps(answer).encode()))

        code, told, n_hosts = self.window(address, play)
        assert (code, n_hosts) == (1, 5)
        assert [messages[0]["method"] for messages in heard] == ["initialize"] * 5
        assert [message["result"] for message in told if "result" in message] == [{"n": 3}]

    def test_nothing_heavy_is_imported(self) -> None:
        program = (
            "import sys, lsp_server.commands.serve, lsp_server.shared_window;"
            "print(*{name.partition('.')[0] for name in sys.modules})"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert not set(done.stdout.split()) & {"torch", "numpy", "pygls", "lsprotocol", "asyncio"}


class TestProcesses:
    """Real windows and a real host, on the tiny model."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def command(self, server_command: tuple[str, ...], runtime: Path) -> tuple[str, ...]:
        return (*server_command, "--shared", "--idle-s", "3")

    async def started(self, command: tuple[str, ...]) -> Client:
        client = await Client.start(command)
        await asyncio.wait_for(client.initialize(ROOT, OPTIONS), LIMIT_S)
        return client

    async def answer(self, client: Client, uri: str, line: int, character: int) -> str:
        answer = await asyncio.wait_for(client.ask(uri, line, character, INVOKED), LIMIT_S)
        items = (answer.result or {"items": []})["items"]
        return items[0]["insertText"] if items else ""

    async def expected(self, suggester: Suggester, text: str, name: str, at: Position) -> str:
        """What a server without a past would answer."""
        document = Document(f"fresh:{hash(text)}", "python", 0, text, name)
        # What other tests had open would be context.
        fresh = Suggester(suggester.engine, Settings(max_tokens=8))
        work = fresh.suggest(
            document, at, explicit=True, deadline_ms=None, n_alternatives=N_ALTERNATIVES
        )
        answer = await asyncio.wait_for(work, LIMIT_S)
        assert answer.items
        return answer.items[0].insert_text

    @pytest.mark.parametrize(("choice", "is_shared"), [("always", True), ("auto", False)])
    async def test_the_clients_choice(
        self, server_command: tuple[str, ...], runtime: Path, choice: str, is_shared: bool
    ) -> None:
        async with asyncio.timeout(4 * LIMIT_S):
            command = (*server_command, "--idle-s", "3", "--device", "cpu")
            async with await Client.start(command) as client:
                options = {**OPTIONS, "shareEngine": choice}
                await asyncio.wait_for(client.initialize(ROOT, options), LIMIT_S)
                assert bool(list(runtime.glob("keystate/*.lock"))) == is_shared
                assert await asyncio.wait_for(client.shutdown(), LIMIT_S) == 0
            if is_shared:
                await ended(runtime)

    async def test_two_windows_and_one_engine(
        self, command: tuple[str, ...], suggester: Suggester, runtime: Path
    ) -> None:
        other_text = TEXT.replace("total", "count")
        async with asyncio.timeout(4 * LIMIT_S):
            # Both find no host.
            one, two = await asyncio.gather(self.started(command), self.started(command))
            async with one, two:
                pid = host_pid(runtime)
                uri = uri_of("a.py")
                one.open(uri, "python", TEXT)
                # The same name, another text: documents are not shared.
                two.open(uri, "python", other_text)
                answers = await asyncio.gather(
                    self.answer(one, uri, 6, 10), self.answer(two, uri, 6, 10)
                )
                at = Position(6, 10)
                assert answers == [
                    await self.expected(suggester, TEXT, "a.py", at),
                    await self.expected(suggester, other_text, "a.py", at),
                ]
                # The states are shared.
                two.open(uri_of("b/a.py"), "python", "")
                os.kill(one.pid, signal.SIGKILL)
                await asyncio.wait_for(one.wait(), LIMIT_S)
                two.insert(uri, 0, 0, "#")
                expected = await self.expected(suggester, "#" + other_text, "a.py", at)
                assert await self.answer(two, uri, 6, 10) == expected
                async with await self.started(command) as three:
                    three.open(uri, "python", TEXT)
                    assert await self.answer(three, uri, 6, 10) == answers[0]
                    (timings,) = await asyncio.wait_for(three.last_timings(), LIMIT_S)
                    # What the window that was killed had read.
                    assert timings["tokens"]["recomputed"] < timings["tokens"]["prompt"] // 4
                    assert await asyncio.wait_for(three.shutdown(), LIMIT_S) == 0
                assert await self.answer(two, uri, 6, 10) == expected
                assert host_pid(runtime) == pid
                two.end_input()
                assert await asyncio.wait_for(two.wait(), LIMIT_S) == 1
            await ended(runtime)

    async def test_a_host_that_is_killed(
        self, command: tuple[str, ...], suggester: Suggester, runtime: Path
    ) -> None:
        uri = uri_of("a.py")
        async with asyncio.timeout(4 * LIMIT_S):
            async with await self.started(command) as client:
                client.open(uri, "python", TEXT)
                client.insert(uri, 4, 12, "é🎉")
                assert await self.answer(client, uri, 6, 10)
                pid = host_pid(runtime)
                # It answers no more, and then is gone.
                os.kill(pid, signal.SIGSTOP)
                hanging = client.ask(uri, 6, 10)
                client.insert(uri, 4, 15, "0")
                counters = client.send("keystate/counters", None)
                os.kill(pid, signal.SIGKILL)
                assert (await asyncio.wait_for(hanging, LIMIT_S)).result is None
                with pytest.raises(Exception, match="-32801"):
                    await asyncio.wait_for(counters, LIMIT_S)
                client.insert(uri, 6, 10, "s")
                text = TEXT.replace("= 0", "=é🎉0 0").replace("# \n", "# s\n")
                # In UTF-16 the party popper is two.
                expected = await self.expected(suggester, text, "a.py", Position(6, 11))
                assert await self.answer(client, uri, 6, 11) == expected
                assert host_pid(runtime) != pid
                assert client.strays == []
                assert await asyncio.wait_for(client.shutdown(), LIMIT_S) == 0
            await ended(runtime)

    async def test_without_a_safe_place_a_window_has_its_own_engine(
        self, server_command: tuple[str, ...], runtime: Path
    ) -> None:
        (runtime / "keystate").mkdir()
        (runtime / "keystate").chmod(0o777)
        command = (*server_command, "--shared")
        async with await Client.start(command, stderr=subprocess.DEVNULL) as client:
            await asyncio.wait_for(client.initialize(ROOT, OPTIONS), LIMIT_S)
            client.open(uri_of("a.py"), "python", TEXT)
            (shown,) = [one for one in client.notifications if "showMessage" in one["method"]]
            assert str(runtime / "keystate") in shown["params"]["message"]
            assert await self.answer(client, uri_of("a.py"), 6, 10)
            assert not list((runtime / "keystate").iterdir())
            assert await asyncio.wait_for(client.shutdown(), LIMIT_S) == 0


async def ended(runtime: Path) -> None:
    """Wait until the host has ended by itself, which frees its lock."""
    import fcntl

    (path,) = runtime.glob("keystate/*.lock")
    with path.open() as lock:
        await asyncio.wait_for(asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX), LIMIT_S)
    assert not list(runtime.glob("keystate/*.sock"))


def pss_bytes(pid: int) -> int:
    """A process' memory, with what it shares with others counted as its part of it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = [line for line in rollup.splitlines() if line.startswith("Pss:")]
    return 1024 * int(line.split()[1])


def rss_bytes(pid: int) -> int:
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return 1024 * int(line.split()[1])


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_two_windows_take_little_more_memory_than_one(runtime: Path) -> None:
    """On the embedded model: resident bytes of all processes, against one server of its own."""
    text = Path(shutil.__file__).read_text()[:20_000]

    async def use(client: Client, name: str) -> None:
        await client.initialize(ROOT, OPTIONS)
        client.open(uri_of(name), "python", text)
        for line in (40, 45):
            await client.ask(uri_of(name), line, 0, INVOKED)

    async with asyncio.timeout(4 * LIMIT_S):
        async with await Client.start(SERVER_COMMAND) as alone:
            await use(alone, "a.py")
            one = rss_bytes(alone.pid)
            assert await alone.shutdown() == 0
        command = (*SERVER_COMMAND, "--shared", "--idle-s", "3")
        async with await Client.start(command) as first, await Client.start(command) as second:
            await use(first, "a.py")
            await use(second, "b.py")
            pids = (host_pid(runtime), first.pid, second.pid)
            total = sum(map(rss_bytes, pids))
            proportional = sum(map(pss_bytes, pids))
            assert [await first.shutdown(), await second.shutdown()] == [0, 0]
        print(f"one {one}, two windows and a host {total} (of their own {proportional})")
        assert total < 1.25 * one
        await ended(runtime)
