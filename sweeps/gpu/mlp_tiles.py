"""Time the MLP at VMamba-T's and -B's first two levels, in bfloat16: python mlp_tiles.py [RESOLUTION...]

One line per size, in microseconds: two kernels with the hidden tensor in memory, torch's operators, and one
kernel with each candidate tile. The rows are those of square images, by default of 1024² and 4096².
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from triton.testing import do_bench

from vlmprof.kernels.block.arguments import MlpArguments
from vlmprof.kernels.block.fused_linear import linear_fused
from vlmprof.kernels.block.fused_mlp import norm_mlp_fused
from vlmprof.kernels.block.mlp_tiles import CANDIDATES
from vlmprof.kernels.block.plain import norm_mlp_plain

STRIDES = {96: 4, 128: 4, 192: 8, 256: 8}
EPS = 1e-5
WARM_UP_MS, TIMED_MS = 5, 30


def drawn(rows: int, channels: int) -> tuple[torch.Tensor, MlpArguments]:
    """Return x and the parameters of `norm_mlp`."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda").bfloat16() / 8

    hidden = 4 * channels
    norm_weight, norm_bias, fc2_bias = draw(channels), draw(channels), draw(channels)
    fc1_weight, fc1_bias, fc2_weight = draw(hidden, channels), draw(hidden), draw(channels, hidden)
    mlp = MlpArguments(norm_weight, norm_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, EPS)
    return draw(rows, channels), mlp


def in_two(x: torch.Tensor, mlp: MlpArguments) -> torch.Tensor:
    """The MLP by two kernels."""
    return linear_fused(linear_fused(x, mlp.first()), mlp.second(x))


def time_us(call: Callable[[], object]) -> float:
    """Return the median duration of a call."""
    return float(do_bench(call, warmup=WARM_UP_MS, rep=TIMED_MS, return_mode="median")) * 1e3


with torch.inference_mode():
    for resolution in map(int, sys.argv[1:] or ("1024", "4096")):
        for channels, stride in STRIDES.items():
            rows = (resolution // stride) ** 2
            x, mlp = drawn(rows, channels)
            calls = {
                "two kernels": partial(in_two, x, mlp),
                "torch": partial(norm_mlp_plain, x, mlp),
            }
            for tile in CANDIDATES[channels]:
                name = f"{tile.rows}x{tile.hidden} {tile.warps} warps {tile.stages} stages"
                calls[name] = partial(norm_mlp_fused, x, mlp, tile)
            told = ", ".join(f"{name} {time_us(call):.1f}" for name, call in calls.items())
            print(f"{resolution}² {rows} rows of {channels}: {told}", flush=True)
            del x, mlp, calls
