"""Time the MLP at VMamba-T's and -B's first two levels, in bfloat16: python mlp_tiles.py [RESOLUTION...]

One line per size, in microseconds: two kernels with the hidden tensor in memory, torch's operators, and one
kernel with each candidate tile. The rows are those of square images, by default of 1024² and 4096².
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from triton.testing import do_bench

from vlmprof.kernels import linear, norm_linear, norm_mlp
from vlmprof.kernels.block.fused_mlp import norm_mlp_fused
from vlmprof.kernels.block.mlp_tiles import CANDIDATES, MlpTile

STRIDES = {96: 4, 128: 4, 192: 8, 256: 8}
EPS = 1e-5
WARM_UP_MS, TIMED_MS = 5, 30


def drawn(rows: int, channels: int) -> list[torch.Tensor]:
    """Return x and the parameters of `norm_mlp`."""
    hidden = 4 * channels
    shapes = ((rows, channels), (channels,), (channels,), (hidden, channels), (hidden,), (channels, hidden))
    return [torch.randn(shape, device="cuda").bfloat16() / 8 for shape in (*shapes, (channels,))]


def in_two(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    """The MLP by `norm_linear` and `linear`."""
    norm_weight, norm_bias, fc1, bias1, fc2, bias2 = parameters
    hidden = norm_linear(x, norm_weight, norm_bias, fc1, bias1, activation="gelu", backend="triton")
    return linear(hidden, fc2, bias2, residual=x, backend="triton")


def in_one(tile: MlpTile, *inputs: torch.Tensor) -> torch.Tensor:
    """The MLP in one kernel with this tile."""
    x, norm_weight, norm_bias, fc1, bias1, fc2, bias2 = inputs
    return norm_mlp_fused(x, norm_weight, norm_bias, fc1, bias1, fc2, bias2, EPS, tile)


def time_us(call: Callable[[], object]) -> float:
    """Return the median duration of a call."""
    return float(do_bench(call, warmup=WARM_UP_MS, rep=TIMED_MS, return_mode="median")) * 1e3


with torch.inference_mode():
    for resolution in map(int, sys.argv[1:] or ("1024", "4096")):
        for channels, stride in STRIDES.items():
            rows = (resolution // stride) ** 2
            inputs = drawn(rows, channels)
            calls = {
                "two kernels": partial(in_two, *inputs),
                "torch": partial(norm_mlp, *inputs, backend="torch"),
            }
            for tile in CANDIDATES[channels]:
                name = f"{tile.rows}x{tile.hidden} {tile.warps} warps {tile.stages} stages"
                calls[name] = partial(in_one, tile, *inputs)
            told = ", ".join(f"{name} {time_us(call):.1f}" for name, call in calls.items())
            print(f"{resolution}² {rows} rows of {channels}: {told}", flush=True)
            del inputs, calls
