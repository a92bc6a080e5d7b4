"""Shape of a Mamba-2 model and of its recurrent state, read from either config format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from logging import getLogger
from typing import Any

import torch

from engine.quantized import Quantization

log = getLogger(__name__)

# Keys of config.json that shape the model, and the value that Hugging Face's Mamba2Config
# gives them when they are left out. Three sizes have no sensible default and are required.
HUGGING_FACE_DEFAULTS: Mapping[str, Any] = {
    "num_heads": 128,
    "head_dim": 64,
    "state_size": 128,
    "expand": 2,
    "n_groups": 8,
    "conv_kernel": 4,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "use_conv_bias": True,
    "use_bias": False,
    "time_step_limit": (0.0, math.inf),
    "residual_in_fp32": True,
    "hidden_act": "silu",
    "quantization_config": None,
}
HUGGING_FACE_REQUIRED = ("hidden_size", "num_hidden_layers", "vocab_size")

# Keys that say nothing about what the weights compute. The token ids among them are wrong in
# practice (Mamba2Config defaults to bos 0, pad 1, eos 2), so ids come from the tokenizer alone.
# chunk_size is a choice of whoever runs the model. norm_before_gate is true in published
# configs of weights that want the gate first: no model code ever read it.
_IGNORED = """
    _name_or_path architectures bos_token_id chunk_size chunk_size_feed_forward dtype
    eos_token_id id2label initializer_range intermediate_size is_encoder_decoder label2id
    model_type norm_before_gate output_attentions output_hidden_states pad_token_id problem_type
    rescale_prenorm_residual return_dict rms_norm time_step_floor time_step_init_scheme
    time_step_max time_step_min time_step_rank torch_dtype transformers_version use_cache
"""
HUGGING_FACE_IGNORED = frozenset(_IGNORED.split())

MISTRAL_REQUIRED = ("dim", "n_layers", "vocab_size", "n_groups", "tie_embeddings")
MISTRAL_OPTIONAL: Mapping[str, Any] = {
    "model_type": "mamba",
    "rms_norm": True,
    "residual_in_fp32": True,
    "pad_vocab_size_multiple": 1,
}
MISTRAL_IGNORED = frozenset({"fused_add_norm"})

# Far more than any model has. Sizes past them are damage, which torch would tell of in many lines,
# and so many layers would take all memory before they are found missing.
MAX_SIZE, MAX_LAYERS = 2**24, 2**10


@dataclass(frozen=True, kw_only=True)
class LayerStateSpec:
    """One tensor of one layer's state: its layer, name, shape without the batch, and dtype."""

    layer: int
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Mamba2Config:
    """Sizes and switches of a Mamba-2 language model, in the vocabulary of the Mamba-2 paper.

    `in_proj` yields d_in_proj rows in the order z | x | B | C | dt. `chunk_size` is how many
    tokens the prefill scans at once; it changes speed, not results. With `quantization` the
    projections and the head are so. Raises ValueError with the offending value where the sizes do
    not fit together.
    """

    d_model: int
    n_layers: int
    vocab_size: int
    d_state: int
    headdim: int
    expand: int = 2
    ngroups: int = 1
    d_conv: int = 4
    chunk_size: int = 64
    norm_eps: float = 1e-5
    tie_embeddings: bool
    conv_bias: bool = True
    proj_bias: bool = False
    dt_limit: tuple[float, float] = (0.0, math.inf)
    residual_in_fp32: bool = True
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), str(field.type))
        if self.n_layers > MAX_LAYERS:
            raise ValueError(f"n_layers is {self.n_layers}, expected at most {MAX_LAYERS}")
        if not 0.0 < self.norm_eps < math.inf:
            raise ValueError(f"norm_eps is {self.norm_eps}, expected a positive number")
        if self.d_conv < 2:
            # States hold the convolution's last inputs, of which there would be none.
            raise ValueError(f"d_conv is {self.d_conv}, expected 2 or more as in known models")
        if self.proj_bias:
            raise ValueError("proj_bias is true, expected false: no known model has it")
        low, high = self.dt_limit
        if not 0.0 <= low < high:
            raise ValueError(f"dt_limit is {self.dt_limit}, expected 0 <= low < high")
        if self.d_inner % self.headdim:
            raise ValueError(
                f"headdim is {self.headdim}, expected a divisor of d_inner"
                f" = expand * d_model = {self.d_inner}"
            )
        if self.nheads % self.ngroups:
            raise ValueError(
                f"ngroups is {self.ngroups}, expected a divisor of the {self.nheads} heads"
            )
        for name in ("d_inner", "conv_dim"):
            _check_type(name, getattr(self, name), "int")
        if self.quantization is not None:
            self.quantization.check_width("d_model", self.d_model)
            self.quantization.check_width("d_inner", self.d_inner)

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def nheads(self) -> int:
        return self.d_inner // self.headdim

    @property
    def conv_dim(self) -> int:
        """Channels that go through the convolution: x, B and C."""
        return self.d_inner + 2 * self.ngroups * self.d_state

    @property
    def d_in_proj(self) -> int:
        return 2 * self.d_inner + 2 * self.ngroups * self.d_state + self.nheads

    def layer_states(self, dtype: torch.dtype = torch.float32) -> tuple[LayerStateSpec, ...]:
        """Every tensor of a sequence's recurrent state, layer by layer.

        `dtype` is the model's: the convolution's last inputs are kept in it. The SSM state is
        float32 whatever the model computes in.
        """
        conv_shape = (self.d_conv - 1, self.conv_dim)
        ssm_shape = (self.nheads, self.headdim, self.d_state)
        return tuple(
            spec
            for layer in range(self.n_layers)
            for spec in (
                LayerStateSpec(layer=layer, name="conv_state", shape=conv_shape, dtype=dtype),
                LayerStateSpec(layer=layer, name="ssm_state", shape=ssm_shape, dtype=torch.float32),
            )
        )

    def state_bytes(self, dtype: torch.dtype = torch.float32) -> int:
        """Bytes of one sequence's recurrent state in a model of this dtype."""
        return sum(spec.n_bytes for spec in self.layer_states(dtype))

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> Mamba2Config:
        """Read the content of a `config.json`; raise ValueError on what this model cannot be."""
        family = config.get("model_type")
        if family != "mamba2":
            raise ValueError(f"model_type is {family!r}, expected 'mamba2'")
        _check_required(config, HUGGING_FACE_REQUIRED)
        known = {*HUGGING_FACE_REQUIRED, *HUGGING_FACE_DEFAULTS, *HUGGING_FACE_IGNORED}
        _report_unknown("config.json", config, known)
        values = {**HUGGING_FACE_DEFAULTS, **config}
        if values["hidden_act"] not in ("silu", "swish"):
            raise ValueError(f"hidden_act is {values['hidden_act']!r}, expected 'silu'")
        read = cls(
            d_model=values["hidden_size"],
            n_layers=values["num_hidden_layers"],
            vocab_size=values["vocab_size"],
            d_state=values["state_size"],
            headdim=values["head_dim"],
            expand=values["expand"],
            ngroups=values["n_groups"],
            d_conv=values["conv_kernel"],
            norm_eps=values["layer_norm_epsilon"],
            tie_embeddings=values["tie_word_embeddings"],
            conv_bias=values["use_conv_bias"],
            proj_bias=values["use_bias"],
            dt_limit=_read_dt_limit(values["time_step_limit"]),
            residual_in_fp32=values["residual_in_fp32"],
            quantization=_read_quantization(values["quantization_config"]),
        )
        if read.nheads != values["num_heads"]:
            raise ValueError(
                f"num_heads is {values['num_heads']}, expected"
                f" expand * hidden_size / head_dim = {read.nheads}"
            )
        return read

    @classmethod
    def from_mistral(cls, params: Mapping[str, Any]) -> Mamba2Config:
        """Read the content of a `params.json`; raise ValueError on what this model cannot be.

        The vocabulary is rounded up to a multiple of pad_vocab_size_multiple, as the embedding
        was when the model was made.
        """
        values = {**MISTRAL_OPTIONAL, **params}
        if values["model_type"] != "mamba":
            raise ValueError(f"model_type is {values['model_type']!r}, expected 'mamba'")
        _check_required(params, MISTRAL_REQUIRED)
        _report_unknown(
            "params.json", params, {*MISTRAL_REQUIRED, *MISTRAL_OPTIONAL, *MISTRAL_IGNORED}
        )
        if values["rms_norm"] is not True:
            raise ValueError(f"rms_norm is {values['rms_norm']!r}, expected true")
        multiple, vocab_size = values["pad_vocab_size_multiple"], values["vocab_size"]
        _check_type("pad_vocab_size_multiple", multiple, "int")
        _check_type("vocab_size", vocab_size, "int")
        return cls(
            d_model=values["dim"],
            n_layers=values["n_layers"],
            vocab_size=-(-vocab_size // multiple) * multiple,
            ngroups=values["n_groups"],
            tie_embeddings=values["tie_embeddings"],
            residual_in_fp32=values["residual_in_fp32"],
            # params.json does not say these: the training code's own defaults hold.
            d_state=128,
            headdim=64,
            expand=2,
            d_conv=4,
        )

    def to_hugging_face(self) -> dict[str, Any]:
        """The same config as the content of a `config.json`; an infinite limit is left out."""
        config = {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "vocab_size": self.vocab_size,
            "num_heads": self.nheads,
            "head_dim": self.headdim,
            "state_size": self.d_state,
            "expand": self.expand,
            "n_groups": self.ngroups,
            "conv_kernel": self.d_conv,
            "chunk_size": self.chunk_size,
            "layer_norm_epsilon": self.norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "use_conv_bias": self.conv_bias,
            "use_bias": self.proj_bias,
            "residual_in_fp32": self.residual_in_fp32,
            "hidden_act": "silu",
        }
        if self.dt_limit != HUGGING_FACE_DEFAULTS["time_step_limit"]:
            config["time_step_limit"] = list(self.dt_limit)
        if self.quantization is not None:
            config["quantization_config"] = self.quantization.to_config()
        return config


def _read_quantization(value: Any) -> Quantization | None:
    return None if value is None else Quantization.from_config(value)


def _read_dt_limit(value: Any) -> tuple[float, float]:
    """Two floats; infinity may be written as JSON's `Infinity` or as {"__float__": "Infinity"}."""
    if isinstance(value, list | tuple) and len(value) == 2:
        bounds = [v.get("__float__", "") if isinstance(v, Mapping) else v for v in value]
        try:
            return float(bounds[0]), float(bounds[1])
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"time_step_limit is {value!r}, expected two numbers")


def _check_required(values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"{missing[0]} is missing, expected the keys {', '.join(names)}")


def _check_type(name: str, value: Any, expected: str) -> None:
    if expected == "int":
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a positive whole number")
        if value > MAX_SIZE:
            found = f"a number of {len(str(value))} digits"
            raise ValueError(f"{name} is {found}, expected at most {MAX_SIZE}")
    elif expected == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, expected true or false")
    elif expected == "float" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{name} is {value!r}, expected a number")


def _report_unknown(file: str, values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        log.warning("%s: keys that are not understood and have no effect: %s", file, unknown)
