"""Measure torch's elementwise functions on a CPU, in units of a matrix product in the same run.

Run it by hand or in CI: `python tests/benchmarks/elementwise.py [--repeats 12]`, about 15 s. It uses one
thread and float32, and reports the shortest CPU time of a few calls, so that other load on the machine
matters little.

The unit is the time of one multiply-add of a 512³ product; VMamba-T at 224² is given in 10⁹ of them. A
function is flagged, and the exit code is 1, if it takes `LIMIT` times the value in `EXPECTED`: such a release
of torch slows our CPU kernels down, and the kernel should call another function.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmprof.backbones import create_backbone
from vlmprof.kernels.selective_scan.vectorized import softplus_

ELEMENTS = 1 << 18
CHANNELS = 256
SIDE = 512
LIMIT = 3.0

MODEL = "VMamba-T, 224²"
EXPECTED = {
    "add": 5, "mul": 5, "div": 6, "addcmul": 5, "exp2": 15, "exp": 41, "log": 50, "sigmoid": 21,
    "silu": 21, "gelu": 25, "gelu, tanh": 82, "softmax": 30, "layer norm": 19, "ours: softplus": 94,
    MODEL: 11,
}  # fmt: skip
"""With torch 2.11 to 2.14.1 on an AMD EPYC of the fourth generation, AVX-512. What is not here is shown
only: no kernel of ours calls it on a CPU, since 2.14.1 takes ten times as long for it as 2.13."""


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    name: str
    nanoseconds: float
    """Per element; of the whole model, 10⁶ of them."""
    multiply_adds: float
    """What a matrix product does meanwhile; of the whole model, 10⁹ of them."""

    @property
    def factor(self) -> float | None:
        """Over what was expected."""
        return self.multiply_adds / EXPECTED[self.name] if self.name in EXPECTED else None


def least_s(call: Callable[[], object], repeats: int) -> float:
    """The least processor time of a call, in seconds, after one that is not timed."""
    call()
    taken = []
    for _ in range(repeats):
        begun = time.thread_time()
        call()
        taken.append(time.thread_time() - begun)
    return min(taken)


def functions() -> dict[str, Callable[[Tensor], object]]:
    """Each of an (n, CHANNELS) tensor, with values of which no function has a shortcut.

    The order counts: with torch 2.14.1 `log1p` is slow in a process until that has called a tanh.
    """
    weight, scratch = torch.ones(CHANNELS), torch.empty(ELEMENTS // CHANNELS, CHANNELS)
    return {
        "log1p": torch.log1p,
        "expm1": torch.expm1,
        "softplus": F.softplus,
        "add": lambda x: x + x,
        "mul": lambda x: x * x,
        "div": lambda x: x / x,
        "addcmul": lambda x: torch.addcmul(x, x, x),
        "exp2": torch.exp2,
        "exp": torch.exp,
        "log": torch.log,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "gelu": F.gelu,
        "softmax": lambda x: x.softmax(-1),
        "layer norm": lambda x: F.layer_norm(x, (CHANNELS,), weight, weight),
        "ours: softplus": lambda x: softplus_(x, scratch),  # of what it made of x before
        "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    }


@torch.inference_mode()
def measure(repeats: int) -> list[Measured]:
    """Every function and the model, in the unit of the module's docstring."""
    torch.manual_seed(0)
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    unit_s = least_s(lambda: a @ b, 3 * repeats) / SIDE**3
    encoder = create_backbone("vmamba-t", image_size=(224, 224), levels="all", kernels="torch")
    images = torch.randn(1, 3, 224, 224)
    taken_s = least_s(lambda: encoder(images), max(3, repeats // 2))
    lines = [Measured(MODEL, taken_s * 1e3, taken_s / unit_s * 1e-9)]
    for name, function in functions().items():
        x = torch.rand(ELEMENTS // CHANNELS, CHANNELS) + 0.1
        taken_s = least_s(partial(function, x), repeats) / ELEMENTS
        lines.append(Measured(name, taken_s * 1e9, taken_s / unit_s))
    return lines


def slow(lines: Sequence[Measured]) -> list[str]:
    """The names of what takes more than `LIMIT` times what was expected."""
    return [line.name for line in lines if line.factor is not None and line.factor > LIMIT]


def table(lines: Sequence[Measured]) -> str:
    """A line for each, and a last one that names what is slow."""
    told = [f"{'function':16} {'ns/element':>10} {'multiply-adds':>13} {'expected':>8} {'factor':>6}"]
    names = slow(lines)
    for line in lines:
        measured = f"{line.name:16} {line.nanoseconds:10.2f} {line.multiply_adds:13.0f}"
        if line.factor is None:
            told.append(f"{measured} {'unused':>8}")
        else:
            loud = "  <-- SLOW" if line.name in names else ""
            told.append(f"{measured} {EXPECTED[line.name]:8} {line.factor:6.2f}{loud}")
    if names:
        told.append(f"SLOW: over {LIMIT:g} times what was expected: {', '.join(names)}")
    return "\n".join(told)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=12)
    torch.set_num_threads(1)
    lines = measure(parser.parse_args().repeats)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread, float32")
    print(table(lines))
    return 1 if slow(lines) else 0


if __name__ == "__main__":
    sys.exit(main())
