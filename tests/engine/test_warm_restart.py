from __future__ import annotations

import itertools
import json
import logging
import os
import pathlib
import shutil
import stat
import time
from hashlib import sha256
from queue import Queue
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.cache import Checkpoint
from engine.engine import Engine
from engine.owner_file import write_owner_file
from engine.quantized import Quantization
from engine.request import Completion, CompletionRequest
from engine.saved_files import forget_states
from engine.tokenizer import Tokenizer
from engine.warm_restart import FORMAT, SavedStates, fingerprint, load_states, save_states
from tests.oracle import check_exact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.mamba2 import Mamba2

CAP = 2**24


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Mamba2]) -> Mamba2:
    return tiny_model(d_model=16, d_state=4, headdim=8)


def checkpoint(model: Mamba2, n: int, seed: int = 0) -> Checkpoint:
    ids = np.random.default_rng(seed).integers(256, size=n, dtype=np.int32)
    hidden, state = model.prefill(torch.from_numpy(ids.astype(np.int64))[None])
    return Checkpoint(ids, state, hidden[0, -1])


def loaded(folder: Path, model: Mamba2, model_id: str = "one") -> dict[int, Checkpoint]:
    return {len(found.ids): found for found in load_states(folder, model_id, model)}


def check_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.ids.dtype == np.int32
    for a, b in (
        (found.hidden, expected.hidden),
        (found.state.conv_state, expected.state.conv_state),
        (found.state.ssm_state, expected.state.ssm_state),
    ):
        assert a.dtype is b.dtype
        assert torch.equal(a, b)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def put_foreign_files(folder: Path) -> list[Path]:
    """Put into a folder what we do not write there, some of it under names much like ours."""
    names = (
        "model.safetensors",
        "notes.txt",
        f"{'0' * 31}.safetensors.part",
        f"{'A' * 32}.safetensors",
    )
    for name in names:
        (folder / name).write_bytes(b"somebody's")
    link = folder / f"{'1' * 32}.safetensors"
    link.symlink_to(folder / names[0])
    return sorted([link, *(folder / name for name in names)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a" / "states"


# There and back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_saved_comes_back_bit_for_bit(
    folder: Path, tiny_model: Callable[..., Mamba2], dtype: torch.dtype
) -> None:
    model = tiny_model(d_model=16, d_state=4, headdim=8)
    for name, parameter in model.named_parameters():
        if not name.endswith(("A_log", "mixer.D", "dt_bias")):
            parameter.data = parameter.data.to(dtype)
    saved = {n: checkpoint(model, n) for n in (1, 7, 90)}
    assert save_states(folder, "one", saved.values(), CAP) == 3
    found = loaded(folder, model)
    assert found.keys() == saved.keys()
    for n in saved:
        check_same(found[n], saved[n])


def test_views_are_saved_as_what_they_show(folder: Path, model: Mamba2) -> None:
    """As a cache gives them: parts of larger tensors."""
    whole = checkpoint(model, 20)
    ids = np.concatenate([whole.ids, whole.ids])[:20]
    hidden = torch.stack([whole.hidden, whole.hidden], dim=1)[:, 0]
    assert not hidden.is_contiguous()
    save_states(folder, "one", [Checkpoint(ids, whole.state, hidden)], CAP)
    check_same(loaded(folder, model)[20], whole)


def test_saving_again_replaces(folder: Path, model: Mamba2) -> None:
    save_states(folder, "one", [checkpoint(model, n) for n in (5, 6)], CAP)
    (folder / f"{'0' * 32}.safetensors.part").write_bytes(b"of a process that was killed")
    foreign = put_foreign_files(folder)
    save_states(folder, "one", [checkpoint(model, n) for n in (6, 8)], CAP)
    assert loaded(folder, model).keys() == {6, 8}
    assert len(files(folder)) == 2 + len(foreign)
    assert save_states(folder, "one", [], CAP) == 0
    assert files(folder) == foreign


def test_files_are_their_owners_alone(folder: Path, model: Mamba2) -> None:
    old = os.umask(0)
    try:
        save_states(folder, "one", [checkpoint(model, 5)], CAP)
        [path] = files(folder)
        # One that is there already, open to everybody, lends its rights to nothing.
        path.chmod(0o666)
        part = path.with_name(f"{path.name}.part")
        part.touch()
        part.chmod(0o666)
        save_states(folder, "one", [checkpoint(model, 5)], CAP)
    finally:
        os.umask(old)
    assert files(folder) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_names_tell_nothing_of_the_text(folder: Path, model: Mamba2) -> None:
    saved = checkpoint(model, 5)
    save_states(folder, "one", [saved], CAP)
    save_states(folder / "other", "other", [saved], CAP)
    names = [path.name for path in (*folder.glob("*.s*"), *(folder / "other").iterdir())]
    assert len(set(names)) == 2
    for name in names:
        assert len(name) == 32 + len(".safetensors")


@pytest.mark.parametrize("n_fit", [0, 1, 2, 3])
def test_the_first_come_first_up_to_the_cap(folder: Path, model: Mamba2, n_fit: int) -> None:
    saved = [checkpoint(model, 9, seed) for seed in range(3)]
    save_states(folder, "one", saved[:1], CAP)
    [path] = files(folder)
    cap_bytes = n_fit * path.stat().st_size + 10
    assert save_states(folder, "one", iter(saved), cap_bytes) == n_fit
    assert sum(path.stat().st_size for path in files(folder)) <= cap_bytes
    ids = {tuple(found.ids) for found in load_states(folder, "one", model)}
    assert ids == {tuple(one.ids) for one in saved[:n_fit]}


def test_a_state_that_cannot_fit_is_not_even_packed(
    folder: Path, model: Mamba2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a model of 7 billion parameters: 260 MB each."""
    monkeypatch.setattr("engine.warm_restart._packed", lambda *_: pytest.fail("it is packed"))
    saved = checkpoint(model, 5)
    assert save_states(folder, "one", [saved], saved.state.n_bytes - 1) == 0


# What is not used


def check_refused(
    folder: Path, model: Mamba2, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        found = loaded(folder, model)
    assert found.keys() == {7}, "the others are used all the same"
    check_same(found[7], checkpoint(model, 7))
    [line] = caplog.messages
    assert line.startswith("a saved state is not used: ")
    assert message in line


def rewritten(path: Path, metadata: dict[str, str] | None = None, **changes: Any) -> None:
    """Write a file anew as somebody else might have: its sum is right."""
    tensors = {**load_file(path), **changes}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    content = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
    entries = {"format": FORMAT, "model": "one", "sha256": sha256(content).hexdigest()}
    save_file(tensors, path, {**entries, **(metadata or {})})


@pytest.fixture
def victim(folder: Path, model: Mamba2) -> Path:
    """A file of five tokens, beside one of seven."""
    save_states(folder, "one", [checkpoint(model, 5)], CAP)
    [path] = files(folder)
    content = path.read_bytes()
    save_states(folder, "one", [checkpoint(model, 7)], CAP)
    path.write_bytes(content)
    assert loaded(folder, model).keys() == {5, 7}
    return path


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("truncated", lambda path: path.write_bytes(path.read_bytes()[:-1]), ""),
    ("half", lambda path: path.write_bytes(path.read_bytes()[:200]), ""),
    ("empty", lambda path: path.write_bytes(b""), ""),
    ("longer", lambda path: path.write_bytes(path.read_bytes() + b"\0"), ""),
    ("text", lambda path: path.write_text("no safetensors at all"), ""),
    ("folder", make_folder, ""),
    ("damaged", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"), "damaged"),
    ("other model", lambda path: rewritten(path, {"model": "two"}), "another model"),
    ("other format", lambda path: rewritten(path, {"format": "keystate-state-0"}), "format"),
    ("weights", lambda path: save_file({"w": torch.zeros(3)}, path), "format None"),
    ("ids missing", lambda path: rewritten(path, ids=None), "ids"),
    ("ids of floats", lambda path: rewritten(path, ids=torch.zeros(5)), "ids is"),
    ("ids in rows", lambda path: rewritten(path, ids=torch.zeros(1, 5).int()), "ids is"),
    ("hidden of another size", lambda path: rewritten(path, hidden=torch.zeros(17)), "hidden is"),
    ("hidden of halves", lambda path: rewritten(path, hidden=torch.zeros(16).half()), "hidden is"),
    ("state of another size", lambda path: rewritten(path, ssm_state=torch.zeros(3)), "ssm_state"),
    ("doubles", lambda path: rewritten(path, conv_state=torch.zeros(3).double()), "conv_state is"),
]


@pytest.mark.parametrize(
    ("harm", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_damaged_or_foreign_is_not_used(
    folder: Path,
    model: Mamba2,
    victim: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], Any],
    message: str,
) -> None:
    harm(victim)
    check_refused(folder, model, caplog, message)


def test_rewritten_without_a_change_it_is_used(folder: Path, model: Mamba2, victim: Path) -> None:
    """Else the test above would prove little."""
    rewritten(victim)
    check_same(loaded(folder, model)[5], checkpoint(model, 5))


def test_any_byte_may_be_damaged(folder: Path, model: Mamba2, victim: Path) -> None:
    content = victim.read_bytes()
    n_header = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:n_header])
    assert set(header) == {"__metadata__", "ids", "hidden", "conv_state", "ssm_state"}
    expected = checkpoint(model, 5)
    places = [*range(n_header), *range(n_header, len(content), 997), len(content) - 1]
    n_refused = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        victim.write_bytes(damaged)
        found = loaded(folder, model)
        n_refused += 5 not in found
        # Where the damage says nothing, as in white space, it is as good as before.
        if 5 in found:
            check_same(found[5], expected)
        assert 7 in found
    assert n_refused > 0.9 * len(places)


def test_a_state_of_another_shape_of_model_is_not_used(
    folder: Path, model: Mamba2, tiny_model: Callable[..., Mamba2]
) -> None:
    save_states(folder, "one", [checkpoint(model, 5)], CAP)
    assert not loaded(folder, tiny_model())
    assert not loaded(folder, model, "two")


# Folders


def test_no_folder_no_states(folder: Path, model: Mamba2, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert not loaded(folder, model)
    assert not caplog.messages
    assert not folder.exists()


def test_a_folder_that_cannot_be_read_or_written_is_a_log_line(
    model: Mamba2, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "states"):
        caplog.clear()
        assert save_states(folder, "one", [checkpoint(model, 5)], CAP) == 0
        assert not loaded(folder, model)
        assert "states were not saved" in caplog.messages[0]
        assert "no states were taken up" in caplog.messages[1]
        assert len(caplog.messages) == 2
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError("none left")], ids=str)
def test_a_disk_that_fills_up_is_a_log_line(
    folder: Path,
    model: Mamba2,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    save_states(folder, "one", [checkpoint(model, 5)], CAP)

    def failing(path: Path, content: bytes) -> None:
        if len(files(folder)) == 2:
            path.with_name(f"{path.name}.part").write_bytes(content[: len(content) // 2])
            raise error
        write_owner_file(path, content)

    monkeypatch.setattr("engine.warm_restart.write_owner_file", failing)
    n_saved = save_states(folder, "one", [checkpoint(model, n) for n in (6, 7, 8)], CAP)
    assert n_saved == 1
    assert str(error) in caplog.text
    monkeypatch.undo()
    found = loaded(folder, model)
    assert found.keys() == {5, 6}, "what is there is whole"
    for n, one in found.items():
        check_same(one, checkpoint(model, n))


# Which model it is


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(3 * 2**20))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model.v3").write_bytes(b"pieces")
    (folder / "README.md").write_text("words")
    return folder


def test_the_fingerprint_is_of_weights_config_and_tokenizer(model_folder: Path) -> None:
    before = fingerprint(model_folder)
    assert fingerprint(model_folder) == before
    (model_folder / "README.md").write_text("other words")
    (model_folder / "cache").mkdir()
    os.utime(model_folder / "config.json", (0, 0))
    assert fingerprint(model_folder) == before
    seen = {before}
    for name, content in [
        ("config.json", b"[]"),
        ("tokenizer.model.v3", b"PIECES"),
        ("model.safetensors", bytes(3 * 2**20 - 1)),
        ("model.safetensors", bytes(2**20) + b"\1" * 2**20 + bytes(2**20)),
        ("model-2.safetensors", b""),
    ]:
        (model_folder / name).write_bytes(content)
        seen.add(fingerprint(model_folder))
    assert len(seen) == 6


def test_int8_states_have_a_folder_and_an_id_of_their_own(
    model_folder: Path, tmp_path: Path
) -> None:
    made = [
        SavedStates.of_model(tmp_path, model_folder, dtype=dtype, int8_states=int8_states)
        for dtype, int8_states in [
            (torch.float32, False),
            (torch.bfloat16, False),
            (torch.float32, True),
        ]
    ]
    exact, _, int8 = made
    assert len({saved.folder for saved in made}) == 3
    assert {saved.folder.parent for saved in made} == {tmp_path}
    # A file that was moved to the other's folder is still refused.
    assert exact.model_id == fingerprint(model_folder) != int8.model_id


# Beside other models

DAY_S = 24 * 3600.0


@pytest.fixture
def other(tmp_path: Path, folder: Path) -> Callable[..., Path]:
    """`other("a", *checkpoints, days=0)`: another model's folder, and how old all in it is."""

    def other(letter: str, *saved: Checkpoint, days: float = 0.0) -> Path:
        other = folder.parent / f"{letter * 16}-torch.float32"
        assert save_states(other, letter, saved, 2**40) == len(saved)
        at = time.time() - days * DAY_S
        for path in (*files(other), other):
            os.utime(path, (at, at))
        return other

    return other


def test_the_cap_is_for_all_models_and_the_oldest_go_first(
    folder: Path, model: Mamba2, other: Callable[..., Path]
) -> None:
    one = [checkpoint(model, 9, seed) for seed in range(4)]
    newer, older = other("a", *one[:2], days=1), other("b", *one[:2], days=2)
    oldest = files(older)[1]
    os.utime(oldest, (0, 0))
    # Half a file more: they differ by some bytes.
    n_bytes = oldest.stat().st_size
    cap_bytes = 5 * n_bytes + n_bytes // 2
    foreign = put_foreign_files(older)
    assert save_states(folder, "one", one[:2], cap_bytes) == 2
    assert len(files(newer)) == 2
    assert len(files(older)) == 1 + len(foreign)
    assert not oldest.exists()
    # What is replaced makes room before others' does.
    assert save_states(folder, "one", one[2:], cap_bytes) == 2
    assert [len(files(each)) for each in (folder, newer, older)] == [2, 2, 1 + len(foreign)]
    assert save_states(folder, "one", one, cap_bytes - n_bytes) == 4
    assert files(older) == foreign
    assert not files(newer)


def test_there_is_never_more_than_the_cap_though_saving_is_broken_off(
    folder: Path, model: Mamba2, other: Callable[..., Path]
) -> None:
    one = [checkpoint(model, 9, seed) for seed in range(6)]
    beside = other("a", *one[:2])
    n_bytes = files(beside)[0].stat().st_size
    cap_bytes = 3 * n_bytes + n_bytes // 2
    n_seen = []

    def saving(saved: list[Checkpoint]) -> Iterator[Checkpoint]:
        for found in saved:
            yield found
            n_seen.append(len(files(folder)) + len(files(beside)))
        raise KeyboardInterrupt

    for saved in (one[:2], one[2:4], one[4:]):
        with pytest.raises(KeyboardInterrupt):
            save_states(folder, "one", saving(saved), cap_bytes)
    assert max(n_seen) == 3
    assert {tuple(found.ids) for found in load_states(folder, "one", model)} >= {
        tuple(found.ids) for found in one[4:]
    }


def test_models_that_were_not_used_for_a_month_lose_theirs(
    folder: Path, model: Mamba2, other: Callable[..., Path]
) -> None:
    states = SavedStates(other("c", checkpoint(model, 5), days=40), "c")
    recent = other("a", checkpoint(model, 5), days=29)
    unused, shared = (other(letter, checkpoint(model, 5), days=31) for letter in "bd")
    foreign = put_foreign_files(shared)
    os.utime(shared, (0, 0))
    # Its own are used now, however old they are.
    assert {len(found.ids) for found in states.load(model)} == {5}
    assert not unused.exists()
    assert files(shared) == foreign
    assert len(files(recent)) == 1
    assert {len(found.ids) for found in SavedStates(recent, "a").load(model)} == {5}
    assert len(files(states.folder)) == 1


def test_all_that_was_saved_is_deleted_and_nothing_else(
    model: Mamba2, model_folder: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "states"
    forget_states(parent)
    kinds = itertools.product(
        (torch.float32, torch.bfloat16), (None, Quantization.named("int4")), (False, True)
    )
    made = [
        SavedStates.of_model(
            parent, model_folder, dtype=dtype, quantization=quantization, int8_states=int8_states
        )
        for dtype, quantization, int8_states in kinds
    ]
    for states in made:
        states.save([checkpoint(model, 5)])
    made[0].folder.joinpath(f"{'0' * 32}.safetensors.part").write_bytes(b"half")
    foreign = put_foreign_files(made[0].folder)
    outside = tmp_path / "outside"
    save_states(outside, "one", [checkpoint(model, 5)], CAP)
    (parent / f"{'e' * 16}-torch.float32").symlink_to(outside)
    save_states(parent / "mine", "one", [checkpoint(model, 5)], CAP)
    forget_states(parent)
    assert files(parent) == sorted(
        [made[0].folder, parent / "mine", parent / f"{'e' * 16}-torch.float32"]
    )
    assert files(made[0].folder) == foreign
    assert len(files(outside)) == len(files(parent / "mine")) == 1


def test_two_processes_may_delete_and_save_at_once(
    folder: Path,
    model: Mamba2,
    other: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside = other("a", checkpoint(model, 5))
    states = SavedStates(beside, "a")
    unlink = pathlib.Path.unlink

    def vanishing(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            unlink(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", vanishing)
    with caplog.at_level(logging.INFO):
        forget_states(folder.parent)
        assert not beside.exists()
        # The other one goes on as if nothing had been.
        assert not list(states.load(model))
        assert states.save([checkpoint(model, 5), checkpoint(model, 6)]) == 2
        assert states.save([checkpoint(model, 7)]) == 1
    assert not caplog.messages
    assert {len(found.ids) for found in states.load(model)} == {7}


# With an engine


PREFIX = (
    "def total(prices):\n    amount = 0\n    for price in prices:\n        amount += price\n" * 3
)


def ask(**changes: Any) -> CompletionRequest:
    fields = {
        "document": "a.py",
        "header": "# a.py\n",
        "prefix": PREFIX,
        "suffix": "    return amount\n",
        "max_tokens": 3,
        "deadline_ms": None,
        "keep_logits": True,
    }
    return CompletionRequest(**{**fields, **changes})


@pytest.fixture
def new_engine(
    tiny_model: Callable[..., Mamba2], small_tokenizer_dir: Path, folder: Path
) -> Iterator[Callable[..., Engine]]:
    tokenizer = Tokenizer.load(small_tokenizer_dir)
    engines = []

    def make(model_id: str = "one", seed: int = 0) -> Engine:
        model = tiny_model(seed=seed, vocab_size=tokenizer.n_vocab)
        engine = Engine(model, tokenizer, n_threads=1, saved=SavedStates(folder, model_id))
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def complete(engine: Engine, request: CompletionRequest) -> Completion:
    answers: Queue[Completion] = Queue()
    engine.submit(request, answers.put)
    return answers.get(timeout=60)


def settle(engine: Engine) -> None:
    """Wait until what was answered is kept, too: the engine has gone on to something else."""
    answers: Queue[Completion] = Queue()
    engine.submit(ask(document="another.py"), answers.put).cancel()
    assert answers.get(timeout=60).stop == "cancel"


def test_the_next_start_goes_on_where_the_last_one_ended(
    new_engine: Callable[..., Engine], folder: Path
) -> None:
    first = new_engine()
    before = complete(first, ask())
    assert before.n_recomputed == before.n_prompt > 100
    first.close()
    assert files(folder)
    second = new_engine()
    after = complete(second, ask(prefix=PREFIX + "    am"))
    assert after.n_recomputed <= 8
    assert after.source == "tier0"
    check_exact(second.model, after)
    assert complete(second, ask()).token_ids == before.token_ids


def test_two_windows_that_close_at_once_keep_both_their_states(
    new_engine: Callable[..., Engine],
) -> None:
    windows = [new_engine(), new_engine()]
    for window in windows:
        # Up, with nothing found there.
        settle(window)
    asked = [ask(document=f"{name}.py", header=f"# {name}.py\n") for name in "ab"]
    for window, request in zip(windows, asked, strict=True):
        assert complete(window, request).n_recomputed > 100
    for window in windows:
        window.close()
    next_one = new_engine()
    assert [complete(next_one, request).n_recomputed for request in asked] == [0, 0]


def test_a_start_without_an_edit_loses_nothing(
    new_engine: Callable[..., Engine], folder: Path
) -> None:
    first = new_engine()
    complete(first, ask())
    first.close()
    saved = files(folder)
    idle = new_engine()
    settle(idle)
    idle.close()
    assert files(folder) == saved
    # What nobody has gone on from for a week is not read at each start for ever.
    for path in saved:
        os.utime(path, (0, time.time() - 8 * DAY_S))
    idle = new_engine()
    settle(idle)
    idle.close()
    assert not files(folder)


def test_what_was_gone_on_from_is_replaced(new_engine: Callable[..., Engine], folder: Path) -> None:
    prefix, n_files = PREFIX, set()
    for n in range(3):
        engine = new_engine()
        prefix += f"    amount_{n} = {n}\n"
        complete(engine, ask(prefix=prefix))
        engine.close()
        n_files.add(len(files(folder)))
    assert len(n_files) == 1


def test_a_file_that_another_process_is_writing_is_left_to_it(folder: Path, model: Mamba2) -> None:
    states = SavedStates(folder, "one")
    states.save([checkpoint(model, 5)])
    parts = [folder / f"{letter * 32}.safetensors.part" for letter in "ab"]
    for part in parts:
        part.write_bytes(b"half")
    os.utime(parts[1], (0, time.time() - 3600.0))
    states.save([checkpoint(model, 5)])
    assert parts[0].exists()
    assert not parts[1].exists()


def test_another_models_states_are_not_taken_up(new_engine: Callable[..., Engine]) -> None:
    first = new_engine()
    complete(first, ask())
    first.close()
    second = new_engine("two", seed=1)
    completion = complete(second, ask())
    assert completion.n_recomputed == completion.n_prompt
    check_exact(second.model, completion)


def test_what_must_not_be_saved_is_not(new_engine: Callable[..., Engine], folder: Path) -> None:
    engine = new_engine()
    complete(engine, ask(document=".env", header="# .env\n", may_be_saved=False))
    engine.close()
    assert not files(folder)
    engine = new_engine()
    complete(engine, ask(document=".env", header="# .env\n", may_be_saved=False))
    kept = complete(engine, ask())
    engine.close()
    saved = [found.ids.tolist() for found in load_states(folder, "one", engine.model)]
    assert saved
    for ids in saved:
        assert ids == list(kept.prompt_ids[: len(ids)])


def test_a_folder_that_breaks_does_not_keep_the_engine_from_serving(
    new_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise AttributeError("broken")

    monkeypatch.setattr(SavedStates, "load", failing)
    engine = new_engine()
    check_exact(engine.model, complete(engine, ask()))


def test_a_save_that_breaks_loses_no_states_and_is_not_tried_for_ever(
    new_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: Queue[None] = Queue()

    def failing(*_: Any) -> Any:
        tried.put(None)
        raise AttributeError("broken")

    monkeypatch.setattr(SavedStates, "save", failing)
    engine = new_engine()
    complete(engine, ask())
    engine.save_soon()
    tried.get(timeout=60)
    assert complete(engine, ask()).n_recomputed == 0
    settle(engine)
    assert tried.empty()
    monkeypatch.undo()


@pytest.fixture
def checkpoint_folder(
    tiny_model: Callable[..., Mamba2],
    save_checkpoint: Callable[[Mamba2, Path], Path],
    small_tokenizer_dir: Path,
    tmp_path: Path,
) -> Path:
    """A tiny model with its tokenizer, to be loaded by its path."""
    n_vocab = Tokenizer.load(small_tokenizer_dir).n_vocab
    directory = save_checkpoint(tiny_model(vocab_size=n_vocab), tmp_path / "tiny")
    shutil.copy(small_tokenizer_dir / "tokenizer.model", directory)
    return directory


def test_an_exact_engine_takes_up_no_int8_states(checkpoint_folder: Path, folder: Path) -> None:
    def run(*, int8_states: bool) -> Completion:
        """Start, complete twice, the second time from a cached state, and close."""
        engine = Engine.load(
            str(checkpoint_folder),
            device="cpu",
            n_threads=1,
            states_folder=folder,
            int8_states=int8_states,
        )
        engine.start()
        first = complete(engine, ask())
        settle(engine)
        engine.decoder.trails.clear()
        again = complete(engine, ask())
        assert again.source == "tier0"
        assert engine.counters()["int8_states"] == int8_states
        if int8_states:
            # Else it would not matter which states are taken up.
            with pytest.raises(AssertionError, match="away from those from scratch"):
                check_exact(engine.model, again)
        else:
            check_exact(engine.model, again)
        engine.close()
        return first

    int8, exact = run(int8_states=True), run(int8_states=False)
    assert int8.n_recomputed == int8.n_prompt
    assert exact.n_recomputed == exact.n_prompt
    assert len(files(folder)) == 2
    assert all(map(files, files(folder)))
    # Each takes up its own.
    assert run(int8_states=True).n_recomputed == run(int8_states=False).n_recomputed == 0
