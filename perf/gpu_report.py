"""What was measured on a GPU: as a short table, and as a picture under the device's roof."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perf.svg_sheet import COLOURS, GRID_COLOUR, TEXT_COLOUR, line, page, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 240, 48, 56


def table(report: dict[str, Any]) -> str:
    """Give the figures of a report for reading."""
    floors = report["floors"]
    lines = [
        f"{report['device']}, torch {report['torch']}, triton {report['triton']}:"
        f" {floors['bandwidth_bytes_s'] / 1e12:.2f} TB/s,"
        f" {floors['bf16_flops_s'] / 1e12:.0f} TFLOP/s bf16 (measured)",
        "",
        *_checks(report["checks"]),
        *_kernels(report["kernels"]),
    ]
    if "model" in report:
        lines += _model(report["model"])
    if "mamba_ssm" in report:
        lines += ["against mamba-ssm's Triton operators:"]
        lines += [
            f"  {row['name']:32}{row['us']:10.1f} us{row['mamba_ssm_us']:10.1f} us"
            f"{row['ratio']:7.2f} x   distance {row['distance']:.1e}"
            for row in report["mamba_ssm"]
        ]
    if "mamba_ssm_error" in report:
        lines.append(f"mamba-ssm was not measured: {report['mamba_ssm_error']}")
    lines.append(f"{report['seconds']:.0f} s in all")
    return "\n".join(lines)


def roofline(report: dict[str, Any]) -> str:
    """Give an SVG: each kernel's operations a second against its operations a byte, both log."""
    floors = report["floors"]
    rate, bandwidth = floors["bf16_flops_s"], floors["bandwidth_bytes_s"]
    points = [
        (row["name"], row["flops"] / row["bytes"], row["flops"] / row["us"] * 1e6)
        for row in report["kernels"]
    ]
    ridge = rate / bandwidth
    x_low = 10.0 ** math.floor(math.log10(min(x for _, x, _ in points)))
    x_high = 10.0 ** math.ceil(math.log10(max(ridge * 4, *(x for _, x, _ in points))))
    y_low = 10.0 ** math.floor(math.log10(min(x_low * bandwidth, *(y for *_, y in points))))
    y_high = 10.0 ** math.ceil(math.log10(rate * 1.01))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + math.log(x / x_low) / math.log(x_high / x_low) * (right - LEFT),
            bottom - math.log(y / y_low) / math.log(y_high / y_low) * (bottom - TOP),
        )

    parts = [text(LEFT, 26, f"Kernels under the roof of one {report['device']}", size=15)]
    for x in _powers(x_low, x_high):
        across, _ = at(x, y_low)
        parts += [
            line((across, TOP), (across, bottom), GRID_COLOUR),
            text(across, bottom + 18, f"{x:g}", anchor="middle"),
        ]
    for y in _powers(y_low, y_high):
        _, down = at(x_low, y)
        parts += [
            line((LEFT, down), (right, down), GRID_COLOUR),
            text(LEFT - 8, down + 4, f"{y / 1e9:g}", anchor="end"),
        ]
    parts += [
        text((LEFT + right) / 2, bottom + 40, "operations a byte", anchor="middle"),
        text(LEFT, TOP - 6, "GFLOP/s"),
        line(at(x_low, x_low * bandwidth), at(ridge, rate), TEXT_COLOUR, 2),
        line(at(ridge, rate), at(x_high, rate), TEXT_COLOUR, 2),
    ]
    names = list(dict.fromkeys(name for name, *_ in points))
    for name, x, y in points:
        across, down = at(x, max(y, y_low))
        colour = COLOURS[names.index(name) % len(COLOURS)]
        parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>')
    for number, name in enumerate(names):
        y = TOP + 18 * number
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<circle cx="{right + 24}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(text(right + 34, y + 4, name))
    return page(WIDTH, HEIGHT, parts)


def _checks(rows: list[dict[str, Any]]) -> Iterator[str]:
    wrong = [row for row in rows if not row["ok"]]
    yield f"{len(rows) - len(wrong)} of {len(rows)} kernel checks within tolerance of float64"
    for row in wrong:
        yield (
            f"  WRONG {row['name']} ({row['detail']}, {row['dtype']}):"
            f" {row['error']:.1e}, expected below {row['tolerance']:.0e}"
        )
    yield ""


def _kernels(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'kernel':24}{'':26}{'us':>10}{'floor':>10}{'over floor':>12}"
    for row in rows:
        yield (
            f"{row['name']:24}{row['detail']:26}{row['us']:10.1f}{row['floor_us']:10.1f}"
            f"{row['over_floor']:12.2f}"
        )
    yield ""


def _model(model: dict[str, Any]) -> Iterator[str]:
    yield f"model of {model['n_layers']} layers, {model['parameters'] / 1e9:.2f} billion parameters"
    agreement = ", ".join(f"{name} {value:.1e}" for name, value in model["agreement"].items())
    yield f"  float32, two layers, against torch on the CPU: {agreement}"
    for name, row in model["decode"].items():
        yield (
            f"  decode {name:6}{row['ms_per_token']:8.2f} ms a token,"
            f" {row['tokens_s']:.0f} tokens/s, {row['share_of_floor']:.0%} of the bandwidth floor"
        )
    for name, rows in model["keystrokes"].items():
        passes = ", ".join(f"{row['tokens']}: {row['over_one']:.2f}" for row in rows)
        yield f"  pass {name:8}{rows[0]['ms']:8.2f} ms for one token; times that for {passes}"
    prefill = model["prefill"]
    yield (
        f"  prefill of {prefill['tokens']:,} tokens: {prefill['tokens_s']:,.0f} tokens/s,"
        f" {prefill['share_of_rate']:.0%} of the bf16 rate"
    )
    prompt = model["long_prompt"]
    yield (
        f"  prefill of {prompt['tokens']:,}: {prompt['tokens_s']:,.0f} tokens/s, late over early"
        f" {prompt['late_over_early']:.3f}, memory grew by {prompt['memory_growth_bytes']:,} bytes,"
        f" decoding after it over that after {prompt['early_tokens']:,}:"
        f" {prompt['decode_late_over_early']:.3f}"
    )
    kept = model["kept_states"]
    yield (
        f"  a kept state ({kept['state_bytes'] / 2**20:.0f} MiB): kept in {kept['keep_ms']:.2f} ms,"
        f" back from the host in {kept['fetch_from_host_ms']:.2f} ms,"
        f" {'equal' if kept['equal'] else 'CHANGED'},"
        f" {'untouched' if kept['unchanged_by_a_pass'] else 'CHANGED'} by a pass;"
        f" logits {kept['logits_distance']:.1e} from scratch, two chunkings"
        f" {kept['distance_between_chunkings']:.1e}"
    )
    yield ""


def _powers(low: float, high: float) -> Iterable[float]:
    exponents = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return [10.0**exponent for exponent in exponents]
