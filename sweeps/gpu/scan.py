"""Run SS2D alone, for a profiler: python scan.py RESOLUTION CALLS, at VMamba-T's first level in bfloat16."""

import sys

import torch

from vlmprof.kernels.ss2d import ss2d

D_INNER, DT_RANK, STRIDE = 192, 6, 4

resolution, calls = map(int, sys.argv[1:])
draw = torch.Generator("cuda").manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=draw, device="cuda")


side = resolution // STRIDE
x = normal(1, side, side, D_INNER).bfloat16()
x_proj = (normal(4, DT_RANK + 2, D_INNER) * D_INNER**-0.5).bfloat16()
dt_proj = (normal(4, D_INNER, DT_RANK) * DT_RANK**-0.5).bfloat16()
dt_bias, a_log, skip = normal(4, D_INNER) - 3.0, 0.1 * normal(4 * D_INNER, 1), normal(4 * D_INNER)
with torch.inference_mode():
    for _ in range(calls):
        ss2d(x, x_proj, dt_proj, dt_bias, a_log, skip, backend="triton")
torch.cuda.synchronize()
