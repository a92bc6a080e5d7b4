"""Reading either config format, and the sizes that follow from it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from engine.config import Mamba2Config
from engine.mamba2 import Mamba2

CODESTRAL_PARAMS = {
    "dim": 4096,
    "n_layers": 64,
    "vocab_size": 32768,
    "n_groups": 8,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 1,
    "tie_embeddings": False,
    "model_type": "mamba",
}
CODESTRAL_CONFIG = {
    "model_type": "mamba2",
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 4096,
    "num_hidden_layers": 64,
    "vocab_size": 32768,
    "num_heads": 128,
    "head_dim": 64,
    "state_size": 128,
    "expand": 2,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 256,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "use_conv_bias": True,
    "use_bias": False,
    "residual_in_fp32": True,
    "hidden_act": "silu",
    "norm_before_gate": True,
    "time_step_limit": [0.0, {"__float__": "Infinity"}],
}
TINY: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 3,
    "vocab_size": 100,
    "d_state": 16,
    "headdim": 8,
    "tie_embeddings": False,
}
both = pytest.mark.parametrize(
    "config",
    [
        pytest.param(Mamba2Config.from_mistral(CODESTRAL_PARAMS), id="params.json"),
        pytest.param(Mamba2Config.from_hugging_face(CODESTRAL_CONFIG), id="config.json"),
    ],
)


@both
def test_codestral_has_its_published_parameter_count(config: Mamba2Config) -> None:
    model = Mamba2(config, device="meta", dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_285_403_648
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@both
def test_codestral_sizes(config: Mamba2Config) -> None:
    assert (config.d_inner, config.nheads) == (8192, 128)
    assert (config.conv_dim, config.d_in_proj) == (10240, 18560)
    states = config.layer_states(torch.bfloat16)
    assert [spec.name for spec in states[:2]] == ["conv_state", "ssm_state"]
    assert [spec.layer for spec in states] == [i // 2 for i in range(128)]
    assert states[0].shape == (3, 10240)
    assert states[1].shape == (128, 64, 128)
    assert {spec.dtype for spec in states[1::2]} == {torch.float32}
    assert sum(spec.n_bytes for spec in states[0::2]) == 3.75 * 2**20
    assert sum(spec.n_bytes for spec in states[1::2]) == 256 * 2**20
    assert config.state_bytes(torch.bfloat16) == 259.75 * 2**20


def test_layer_states_are_those_of_the_model() -> None:
    config = Mamba2Config(**TINY)
    state = Mamba2(config, dtype=torch.bfloat16).initial_state()
    for spec in config.layer_states(torch.bfloat16):
        tensor = getattr(state, spec.name)[spec.layer, 0]
        assert tensor.shape == spec.shape
        assert tensor.dtype == spec.dtype
    assert state.n_bytes == config.state_bytes(torch.bfloat16)


@pytest.mark.parametrize(
    "config",
    [
        Mamba2Config(**TINY),
        Mamba2Config(**{**TINY, "tie_embeddings": True, "conv_bias": False}),
        Mamba2Config(**{**TINY, "ngroups": 4, "expand": 3, "d_conv": 3, "norm_eps": 1e-6}),
        Mamba2Config(**{**TINY, "dt_limit": (0.01, 0.5), "residual_in_fp32": False}),
        Mamba2Config(**{**TINY, "dt_limit": (0.01, math.inf)}),
    ],
    ids=["plain", "tied", "odd_sizes", "dt_limit", "dt_above"],
)
def test_hugging_face_round_trip(config: Mamba2Config) -> None:
    text = json.dumps(config.to_hugging_face())
    assert Mamba2Config.from_hugging_face(json.loads(text)) == config


def test_hugging_face_defaults_fill_in() -> None:
    sizes = {"hidden_size": 4096, "num_hidden_layers": 64, "vocab_size": 32768}
    config = Mamba2Config.from_hugging_face({"model_type": "mamba2", **sizes})
    assert config == Mamba2Config.from_hugging_face(CODESTRAL_CONFIG)


@pytest.mark.parametrize(
    ("vocab_size", "multiple", "padded"), [(50277, 16, 50288), (64, 8, 64), (65, 1, 65)]
)
def test_mistral_vocabulary_is_padded(vocab_size: int, multiple: int, padded: int) -> None:
    params = {**CODESTRAL_PARAMS, "vocab_size": vocab_size, "pad_vocab_size_multiple": multiple}
    assert Mamba2Config.from_mistral(params).vocab_size == padded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba', expected 'mamba2'"),
        ({"model_type": "llama"}, "model_type is 'llama', expected 'mamba2'"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4096"}, "d_model is '4096', expected a positive whole number"),
        ({"num_hidden_layers": 0}, "n_layers is 0"),
        ({"num_hidden_layers": 10**6}, "n_layers is 1000000, expected at most 1024"),
        ({"vocab_size": 10**30}, "vocab_size is .* 31 digits, expected at most"),
        ({"vocab_size": 10**400}, "vocab_size is .*, expected at most"),
        ({"state_size": 2**23}, "conv_dim is .*, expected at most"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"vocab_size": 10.5}, "vocab_size is 10.5"),
        ({"num_heads": 64}, "num_heads is 64, expected .* = 128"),
        ({"head_dim": 60}, "headdim is 60, expected a divisor"),
        ({"n_groups": 3}, "ngroups is 3, expected a divisor"),
        ({"use_bias": True}, "proj_bias is true"),
        ({"conv_kernel": 1}, "d_conv is 1, expected 2 or more"),
        ({"use_conv_bias": "yes"}, "conv_bias is 'yes', expected true or false"),
        ({"tie_word_embeddings": 1}, "tie_embeddings is 1, expected true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        ({"layer_norm_epsilon": 0.0}, "norm_eps is 0.0"),
        ({"layer_norm_epsilon": math.nan}, "norm_eps is nan"),
        ({"layer_norm_epsilon": math.inf}, "norm_eps is inf"),
        ({"layer_norm_epsilon": "small"}, "norm_eps is 'small', expected a number"),
        ({"time_step_limit": [0.1]}, "time_step_limit is .* expected two numbers"),
        ({"time_step_limit": [0, 10**400]}, "time_step_limit is .* expected two numbers"),
        ({"time_step_limit": [0.5, 0.1]}, "dt_limit is .*0.5, 0.1"),
        ({"time_step_limit": [0.0, {"float": 1}]}, "time_step_limit is .* expected two numbers"),
    ],
    ids=str,
)
def test_bad_hugging_face_config(changes: dict[str, Any], message: str) -> None:
    config = {**CODESTRAL_CONFIG, **changes}
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Mamba2Config.from_hugging_face(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "transformer"}, "model_type is 'transformer', expected 'mamba'"),
        ({"dim": None}, "dim is missing"),
        ({"rms_norm": False}, "rms_norm is False, expected true"),
        ({"pad_vocab_size_multiple": 0}, "pad_vocab_size_multiple is 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"dim": 4000}, "ngroups is 8, expected a divisor of the 125 heads"),
    ],
    ids=str,
)
def test_bad_mistral_params(changes: dict[str, Any], message: str) -> None:
    params = {**CODESTRAL_PARAMS, **changes}
    params = {key: value for key, value in params.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Mamba2Config.from_mistral(params)


def test_unknown_keys_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    Mamba2Config.from_hugging_face({**CODESTRAL_CONFIG, "sliding_window": 4})
    Mamba2Config.from_mistral({**CODESTRAL_PARAMS, "moe": {}})
    assert [record.args for record in caplog.records] == [
        ("config.json", ["sliding_window"]),
        ("params.json", ["moe"]),
    ]


def test_known_keys_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    Mamba2Config.from_hugging_face(CODESTRAL_CONFIG)
    Mamba2Config.from_mistral(CODESTRAL_PARAMS)
    assert not caplog.records
