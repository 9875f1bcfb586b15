"""An operator that no formula knows is named: by counting, `estimate`, and a sweep's row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vlmprof.cli.app import app
from vlmprof.cost import count_module

MODULE = '''
import torch
from torch import nn
from vlmprof.backbones import backbone

class Solves(nn.Module):
    """Tokens of 16 x 16 pixels, through an operator that has no formula."""
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return tokens + torch.linalg.cholesky_ex(tokens.transpose(1, 2) @ tokens).L.mean()

@backbone(embed_dim=32, stride=16)
def solves():
    return Solves()
'''


def assumed(call: object, *shapes: tuple[int, ...]) -> tuple[str, ...]:
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    return count_module(nn.Identity(), inputs, call=call).assumptions  # type: ignore[arg-type]


def test_an_operator_without_a_formula_is_named_every_time() -> None:
    def factor(x: Tensor) -> Tensor:
        return torch.linalg.cholesky_ex(x).L

    for _ in range(2):
        assert assumed(factor, (8, 8)) == (
            "aten.linalg_cholesky_ex has no formula: counted as if elementwise",
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.exp() * 2 + x.sum(-1, keepdim=True).softmax(0),
        lambda x: x.sort(-1).values.cumsum(-1).topk(2).values,
        lambda x: torch.zeros_like(x).scatter_add(0, torch.zeros_like(x, dtype=torch.long), x),
        lambda x: nn.functional.layer_norm(x, x.shape[-1:]).argmax(-1),
        lambda x: x @ x.t() + torch.mv(x, x[0])[:, None] + torch.dot(x[0], x[1]),
        lambda x: torch.fft.rfft2(x).abs(),
    ],
)
def test_what_costs_a_pass_or_has_a_formula_is_not(call: object) -> None:
    assert assumed(call, (16, 16)) == ()


def test_a_fourier_transform_costs_five_n_log_n() -> None:
    x = torch.empty(4, 64, device="meta", dtype=torch.complex64)
    cost = count_module(nn.Identity(), x, call=torch.fft.fft)
    assert cost.flops == 4 * 5 * 64 * 6


def test_a_vector_and_a_triangle() -> None:
    a, b = torch.empty(32, 32, device="meta"), torch.empty(32, 5, device="meta")
    assert count_module(nn.Identity(), [a, b[:, 0]], call=torch.mv).matrix_flops == 2 * 32 * 32
    solved = count_module(
        nn.Identity(), [a, b], call=lambda a, b: torch.linalg.solve_triangular(a, b, upper=False)
    )
    assert (solved.matrix_flops, solved.flops) == (0, 32 * 32 * 5)


@pytest.mark.slow
def test_estimate_and_the_row_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_encoder.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    chosen = ["--backbone", "own_encoder:solves", "--resolution", "32", "--llm", "llama-23m"]
    words = "counted vision: aten.linalg_cholesky_ex has no formula"
    shown = CliRunner().invoke(app, ["estimate", *chosen, "--gpu", "h100"])
    assert words in " ".join(shown.output.split())
    measured = [*chosen, "--dtype", "float32", "--warm-up", "1", "--iterations", "2", "--stages", "vision"]
    CliRunner().invoke(app, ["sweep", *measured, "--out", "run"])
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    assert any(words in warning for warning in row["warnings"])
