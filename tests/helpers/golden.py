"""The recipe for tests/golden: weights and inputs generated from names, and summaries for comparison."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "golden"


def load(file: str) -> dict[str, Any]:
    """The golden records of a file, by model."""
    return json.loads((FOLDER / file).read_text())


def golden_weight(name: str, like: Tensor) -> Tensor:
    """What the official model held in parameter `name` when its golden outputs were computed."""
    if not like.is_floating_point():
        return like.clone()
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(like.shape))
    z = torch.from_numpy(np.asarray(noise, dtype="float32"))
    match name.rsplit(".", 1)[-1]:
        case "A_logs":
            value = torch.arange(1, like.shape[-1] + 1).float().log() + 0.1 * z
        case "dt_projs_bias":
            value = 0.5 * z - 2
        case "dt_projs_weight":
            value = 0.2 * z
        case "running_var":
            value = 1 + 0.1 * z.abs()
        case "Ds":
            value = 1 + 0.1 * z
        case "weight" if like.ndim == 1:
            value = 1 + 0.1 * z
        case _ if like.ndim == 1:
            value = 0.1 * z
        case _:
            value = z / math.sqrt(math.prod(like.shape[1:]))
    return value.to(like.dtype)


def load_golden_weights(module: nn.Module) -> None:
    """Fill every parameter and buffer of `module`, strictly."""
    state = {name: golden_weight(name, tensor) for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, strict=True)


def golden_image(height: int, width: int) -> Tensor:
    """(1, 3, height, width) of normal values."""
    noise = np.random.default_rng(height * 10007 + width).standard_normal((1, 3, height, width))
    return torch.from_numpy(noise.astype("float32"))


def relative_error(tensor: Tensor, golden: dict[str, Any]) -> float:
    """The largest deviation of mean, standard deviation and samples, relative to the standard deviation."""
    assert list(tensor.shape) == golden["shape"]
    flat = tensor.detach().float().flatten()
    picked = flat[torch.linspace(0, flat.numel() - 1, len(golden["sample"])).long()]
    worst = (picked - torch.tensor(golden["sample"])).abs().max().item()
    mean, std = flat.mean().item() - golden["mean"], flat.std().item() - golden["std"]
    return max(worst, abs(mean), abs(std)) / golden["std"]
