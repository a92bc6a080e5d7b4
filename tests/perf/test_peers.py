"""The comparison with peers: its scenarios, its arithmetic, and how it talks to llama-server."""

from __future__ import annotations

import signal
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.checkpoint import EMBEDDED, load_model
from engine.tokenizer import Tokenizer
from perf.peers.__main__ import NO_LLAMA, skipped_lines
from perf.peers.equality import equality
from perf.peers.llama_cpp import LlamaServer, find_llama_server, llama_version
from perf.peers.peer_process import PeerProcess
from perf.peers.peer_run import (
    KEYSTATE,
    LLAMA_F32,
    LLAMA_Q8_0,
    PEERS,
    TRANSFORMERS,
    UNASKED,
    UNCACHED,
    PeerRun,
    PeerSetup,
    _given_documents,
    agree,
    run_peers,
)
from perf.peers.peers_picture import picture
from perf.peers.peers_table import markdown, ratio, total_ms
from perf.peers.scenario import (
    APPEND,
    BEHIND,
    BEHIND_KINDS,
    COLD,
    DELETE_40,
    JUMP_BACK,
    KINDS,
    NEW_PLACE,
    TYPED,
    UNDO_DELETION,
    UNDO_EDIT,
    Scenario,
    make_scenario,
    typing_scenario,
)
from perf.peers.worker import LINE, ONE
from perf.peers.worker_process import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

FAKE_LLAMA = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.answer({"tokens": list(body["content"].encode())})
        if not body.get("stream"):
            best = {"id": 7, "logprob": -0.5}
            return self.answer({"completion_probabilities": [{"top_logprobs": [best]}]})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        prompt = body.get("prompt") or [*map(len, (body["input_suffix"], body["input_prefix"]))]
        for n in range(body["n_predict"]):
            self.event({"tokens": [prompt[0] + n], "stop": False})
        timings = {"prompt_n": len(prompt), "prompt_ms": 2.0, "predicted_ms": 0.5}
        self.event({"tokens": [], "stop": True, "timings": timings})
        self.wfile.write(b"0\\r\\n\\r\\n")
        # As the real one does, without saying so.
        self.close_connection = True

    def answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def event(self, content):
        data = b"data: " + json.dumps(content).encode() + b"\\n\\n"
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))

    def log_message(self, *_):
        pass

if "--version" in sys.argv:
    sys.exit("version: 0.0 (none)")
port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(EMBEDDED)


@pytest.fixture(scope="module")
def scenario(tokenizer: Tokenizer) -> Scenario:
    return make_scenario(tokenizer, 1_000, 2)


@pytest.fixture(scope="module")
def fake_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("llama") / "llama-server"
    program.write_text(f"#!{sys.executable}{FAKE_LLAMA}")
    program.chmod(0o700)
    return program


@pytest.fixture(scope="module")
def server(fake_llama: Path) -> Iterator[LlamaServer]:
    with LlamaServer(str(fake_llama), Path("any.gguf"), n_threads=1, n_context=100) as server:
        yield server


def test_what_does_not_get_ready_is_ended() -> None:
    class NeverReady(PeerProcess):
        def _wait_until_ready(self) -> None:
            raise TimeoutError

        @property
        def ended_by(self) -> int | None:
            return self._process.poll()

    peer = NeverReady((sys.executable, "-c", "import sys; sys.stdin.read()"), stdin=PIPE)
    with pytest.raises(TimeoutError), peer:
        pass
    assert peer.ended_by == -signal.SIGKILL


def test_a_scenario_has_every_kind_and_ends_where_it_says(
    scenario: Scenario, tokenizer: Tokenizer
) -> None:
    assert {step.kind for step in scenario.steps} == {*KINDS, COLD, None}
    document = scenario.open()
    n_tokens = len(tokenizer.encode(scenario.text))
    assert 0.95 * scenario.n_tokens < n_tokens <= scenario.n_tokens
    texts, cursors = [], []
    for step in scenario.steps:
        for change in step.changes:
            document.apply(change)
        texts.append(document.text)
        cursors.append(document.offset_at(step.cursor))
    kinds = [step.kind for step in scenario.steps]
    for kind in (UNDO_DELETION, UNDO_EDIT):
        undone = kinds.index(kind)
        assert texts[undone] == texts[undone - 2] != texts[undone - 1]
        assert cursors[undone] == cursors[undone - 2]
    deleted = kinds.index(DELETE_40)
    assert len(texts[deleted]) == len(texts[deleted - 1]) - 40
    for distance, kind in zip(BEHIND, BEHIND_KINDS, strict=True):
        changed = scenario.steps[kinds.index(kind)].changes[0].range
        assert changed is not None
        cursor = cursors[kinds.index(kind)]
        behind = texts[kinds.index(kind)][document.line_start(changed[0].line) : cursor]
        assert distance <= len(tokenizer.encode(behind)) <= distance + 60
    back = kinds.index(JUMP_BACK)
    # What was taken back was typed again.
    assert TYPED[:24] in texts[back]
    assert kinds[back - 2] == NEW_PLACE
    # Where it was before, with the one character and nothing else.
    assert cursors[back] == cursors[back - 3] + 1
    assert texts[back][: cursors[back] - 1] == texts[back - 3][: cursors[back - 3]]


def test_a_new_place_is_new_each_time(scenario: Scenario) -> None:
    for kind in (COLD, NEW_PLACE):
        places = [step.cursor.line for step in scenario.steps if step.kind == kind]
        assert len(set(places)) == len(places) == 2
    # Nothing was typed where the 40 characters are deleted.
    numbers = [n for n, step in enumerate(scenario.steps) if step.kind == DELETE_40]
    assert all(scenario.steps[n - 1].kind == COLD for n in numbers)


def test_typing_types_what_it_says_and_takes_some_back(tokenizer: Tokenizer) -> None:
    typing = typing_scenario(tokenizer, 300, 50)
    document = typing.open()
    for step in typing.steps:
        for change in step.changes:
            document.apply(change)
    cursor = document.offset_at(typing.steps[-1].cursor)
    assert document.slice(cursor - 50, cursor) == TYPED[:50]
    assert document.n_chars == len(typing.text) + 50
    assert sum(step.kind is None for step in typing.steps) == 2
    assert len(typing.steps) == 1 + 50 + 2 * (1 + 2)


def test_llama_server_is_asked_and_timed(server: LlamaServer) -> None:
    reply = server.ask([11, 2, 3], 4)
    assert reply.ids == (11, 12, 13, 14)
    assert reply.n_recomputed == 3
    assert reply.inner_ms == 2.5
    assert 0 < reply.first_ms <= reply.ms
    # It ends each connection behind a streamed answer.
    assert server.ask([5], 1).ids == (5,)
    assert server.usage().rss_bytes


def test_infill_is_given_the_texts_around_the_cursor(server: LlamaServer) -> None:
    reply = server.infill("before", "behind it", 2)
    assert reply.ids == (9, 10)
    assert reply.n_recomputed == 2


def test_infill_follows_the_document_and_is_not_compared(
    scenario: Scenario, server: LlamaServer
) -> None:
    exact = PeerRun(replies={n: reply(4, 5) for n, step in enumerate(scenario.steps) if step.kind})
    asked: list[str] = []

    def infill(prefix: str, suffix: str, n_tokens: int) -> Reply:
        asked.append(prefix + suffix)
        return server.infill(prefix, suffix, n_tokens)

    run = _given_documents(scenario, infill, exact)
    assert run.replies.keys() == exact.replies.keys()
    document, texts = scenario.open(), []
    for step in scenario.steps:
        for change in step.changes:
            document.apply(change)
        texts += [document.text] if step.kind else []
    assert asked == texts
    at = document.offset_at(scenario.steps[-1].cursor)
    assert run.replies[len(scenario.steps) - 1].ids[0] == document.n_chars - at


def test_equality_counts_what_differs(server: LlamaServer, tokenizer: Tokenizer) -> None:
    model: Any = Flat()
    found = equality(server, tokenizer, model, n_texts=9, n_prompts=4)
    # A server that takes bytes for tokens, and foresees token 7 where the model says 6.
    assert found["texts"] == found["texts_differing"] == 12
    assert found["prompts"] == found["prompts_other_best"] == 4
    ours = float(torch.log_softmax(LOGITS.double(), dim=-1)[7])
    assert found["max_log_prob_difference"] == pytest.approx(abs(ours + 0.5))


def test_a_missing_llama_server_is_a_line_and_a_wrong_one_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_llama: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_llama_server(None) is None
    assert skipped_lines(PEERS, None) == [NO_LLAMA]
    assert skipped_lines((KEYSTATE,), None) == []
    with pytest.raises(ValueError, match=r"--llama-server is .*nowhere"):
        find_llama_server(str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(fake_llama.parent))
    assert find_llama_server(None) == str(fake_llama)
    assert skipped_lines(PEERS, str(fake_llama)) == []
    assert llama_version(str(fake_llama)) == "version: 0.0 (none)"


def reply(*ids: int, prompt: tuple[int, ...] = (1, 2), ms: float = 1.0) -> Reply:
    return Reply(ids=ids, ms=ms, first_ms=ms, n_recomputed=0, prompt=prompt)


LOGITS = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0 + 1e-4, 0.5])


class Flat:
    """A model that can hardly tell tokens 5 and 6 apart, and says how much it was asked."""

    def __init__(self) -> None:
        self.n_read: list[int] = []

    def prefill(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.n_read.append(tokens.shape[1])
        return torch.zeros(1, tokens.shape[1], 4), None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return LOGITS


@pytest.mark.parametrize(
    ("other", "counted"),
    [
        (reply(4, 5), "equal"),
        (reply(4, 5, prompt=()), "equal"),
        (reply(4, 5, 2), "equal"),
        (reply(4, 6), "ties"),
        (reply(3, 5), "different"),
        (reply(4), "different"),
        (reply(4, 5, prompt=(1, 3)), "different"),
    ],
)
def test_answers_are_equal_or_ties_or_different(other: Reply, counted: str) -> None:
    model: Any = Flat()
    counts = agree(
        PeerRun(replies={0: other}), PeerRun(replies={0: reply(4, 5)}), model, 2, is_rounded=False
    )
    assert counts == {"asked": 1, "equal": 0, "ties": 0, "different": 0, counted: 1}
    if counted == "ties":
        # Behind what both have written.
        assert model.n_read == [3]


def test_what_rounded_weights_choose_is_never_called_a_tie() -> None:
    model: Any = Flat()
    exact = PeerRun(replies={0: reply(4, 5)})
    counts = agree(PeerRun(replies={0: reply(4, 6)}), exact, model, 2, is_rounded=True)
    assert counts["different"] == 1
    assert not model.n_read


def kinds(first_ms: float, ms: float, *names: str, **more: Any) -> dict[str, Any]:
    figures = {
        "first_ms": first_ms,
        "first_ms_max": 3 * first_ms,
        "ms": ms,
        "recomputed": 3,
        "prompt_kinds": ["bridge"],
        **more,
    }
    return {
        "kinds": dict.fromkeys(names, figures),
        "agreement": {"asked": 9, "equal": 7, "ties": 2, "different": 0},
        "rss_bytes": 5_000_000,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    wants = {
        KEYSTATE: kinds(4.0, 9.0, *KINDS),
        LLAMA_Q8_0: kinds(50.0, 60.0, *KINDS, recomputed=505),
        UNCACHED: kinds(800.0, 900.0, APPEND, NEW_PLACE),
        UNASKED: kinds(20.0, 30.0, *KINDS),
    }
    unit = {"server_share_ms": 1.0, ONE: wants, LINE: wants}
    return {
        "date": "2026-01-02",
        "machine": "a machine",
        "threads": 2,
        "model": "embedded",
        "versions": {"keystate": "1", "llama.cpp": "2"},
        "skipped": [NO_LLAMA],
        "lengths": {"500": unit, "8000": unit},
        "typing": {
            "tokens": 500,
            "typed": 60,
            "peers": {KEYSTATE: {"cpu_s_per_1000_chars": 1.26, "rss_bytes": None}},
        },
        "start_s": {KEYSTATE: 1.5},
    }


def test_the_language_server_s_share_is_added_to_keystate_alone(report: dict[str, Any]) -> None:
    assert total_ms(report, "500", ONE, KEYSTATE, APPEND) == 5
    assert total_ms(report, "500", LINE, KEYSTATE, APPEND) == 10
    assert total_ms(report, "500", ONE, LLAMA_Q8_0, APPEND) == 50
    assert total_ms(report, "500", ONE, UNCACHED, DELETE_40) is None
    assert ratio(report, "500", ONE, LLAMA_Q8_0, APPEND) == 10
    assert ratio(report, "500", LINE, LLAMA_Q8_0, APPEND) == 6
    assert ratio(report, "500", ONE, LLAMA_F32, APPEND) is None


def test_the_tables_say_what_was_measured(report: dict[str, Any]) -> None:
    text = markdown(report)
    assert "2026-01-02, a machine, 2 threads" in text
    assert NO_LLAMA in text
    rows = [line for line in text.splitlines() if line.startswith("| delete 40 |")]
    # One keystroke is as good as another where the whole prompt is read each time.
    assert rows[0] == "| delete 40 | 5.0 (13.0) | 50.0 (150) | 801 | 10.0× |"
    assert rows[1] == "| delete 40 | 10.0 | 60.0 | 901 | 6.0× |"
    assert "| delete 40 | 3 | 3 | 505 | 505 |" in rows
    assert f"| {LLAMA_Q8_0} | 36 | 28 | 8 | 0 |" in text
    assert "| 8,000 | 21.0 | bridge | 31.0 | 5.0 | 50.0 | – |" in text
    assert f"| {KEYSTATE} | 1.3 | 0 |" in text
    assert TRANSFORMERS not in text.split("## A keystroke")[1]


def test_the_picture_draws_every_peer_that_was_measured(report: dict[str, Any]) -> None:
    drawn = picture(report)
    root = ET.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {KEYSTATE, LLAMA_Q8_0, UNCACHED, UNASKED, *KINDS} <= set(texts)
    assert LLAMA_F32 not in texts


@pytest.mark.slow
def test_keystate_answers_alike_with_and_without_its_cache(tokenizer: Tokenizer) -> None:
    short = make_scenario(tokenizer, 500, 1)
    setup = PeerSetup(
        model=None, n_threads=1, llama_server=None, gguf={}, peers=(KEYSTATE, UNCACHED, LLAMA_F32)
    )
    model = load_model(EMBEDDED, dtype=torch.float32)
    heard: list[str] = []
    found = run_peers(short, LINE, setup, model, tokenizer.eos_id, heard.append)
    assert list(found) == heard == [KEYSTATE, UNCACHED]
    agreement = found[UNCACHED]["agreement"]
    assert agreement["asked"] == 3
    assert agreement["different"] == 0
    recomputed = {peer: found[peer]["kinds"][APPEND]["recomputed"] for peer in found}
    assert recomputed[KEYSTATE] <= 2
    assert recomputed[UNCACHED] > 450
    assert found[KEYSTATE]["rss_bytes"] > 0
