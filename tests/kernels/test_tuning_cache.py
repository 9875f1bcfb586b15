"""Tuning of launches: explicit, bounded, stored on disk, and harmless without a valid file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.helpers.interpreted import interpret
from vlmprof.cli import kernels as command
from vlmprof.errors import UserError
from vlmprof.kernels.common import tuning_cache
from vlmprof.kernels.tools.tune import Tuned, tune

CPU = torch.device("cpu")
SHAPE = tuning_cache.Shape(d_inner=192, dt_rank=6, d_state=1, dtype=torch.bfloat16, positions=3136)

INTERPRETED = """
import json, torch
from vlmprof.kernels.ss2d.fused import launch_for, ss2d_fused
from vlmprof.kernels.ss2d.parameters import Parameters
from vlmprof.kernels.tools.tune import tune_ss2d
from vlmprof.kernels.tools.cases import ss2d_case
torch.set_num_threads(1)
shape, kind, cpu = (1, 8, 5, 4), torch.float32, torch.device("cpu")
x, *parameters = ss2d_case("any", kind, cpu, shape, 2, 1).arguments
arguments = x, Parameters(*parameters)
by_rule = launch_for(torch.Size(shape), 2, 1, kind, cpu)
before = ss2d_fused(*arguments)
tried = []
def timer(call):
    call()
    tried.append(len(tried))
    return -float(len(tried))  # the last one is the fastest
found = tune_ss2d(shape, 2, 1, kind, cpu, timer)
tuned = launch_for(torch.Size(shape), 2, 1, kind, cpu)
agrees = torch.allclose(ss2d_fused(*arguments), before, rtol=1e-5, atol=1e-6)
print(json.dumps([by_rule.tiles, by_rule.chosen_by, found.tiles, tuned.tiles, tuned.chosen_by, agrees]))
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMPROF_TUNING_CACHE", str(tmp_path / "deep" / "tuning.json"))
    tuning_cache.tuned_choice.cache_clear()


def tuned_by(seconds: Callable[[int], float]) -> Tuned:
    """Tune SHAPE as if a call with t tiles took seconds(t)."""
    ran: list[int] = []

    def timer(call: Callable[[], object]) -> float:
        call()
        return seconds(ran[-1])

    return tune(SHAPE, CPU, ran.append, timer)


def test_the_fastest_candidate_is_kept_for_its_sizes_alone() -> None:
    assert tuning_cache.tuned_choice(SHAPE, CPU) is None
    found = tuned_by(lambda tiles: abs(tiles - 6.0))
    assert found.tiles == 6
    assert len(found.seconds) <= 8
    assert tuning_cache.tuned_choice(SHAPE, CPU) == 6
    near = tuning_cache.Shape(192, 6, 1, torch.bfloat16, 4095)
    far = tuning_cache.Shape(192, 6, 1, torch.bfloat16, 4096)
    other = tuning_cache.Shape(192, 6, 1, torch.float32, 3136)
    assert [tuning_cache.tuned_choice(shape, CPU) for shape in (near, far, other)] == [6, None, None]


def test_other_versions_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned_by(float)
    assert tuning_cache.tuned_choice(SHAPE, CPU) == 1
    monkeypatch.setattr(tuning_cache, "KERNELS", tuning_cache.KERNELS + 1)
    tuning_cache.tuned_choice.cache_clear()
    assert tuning_cache.tuned_choice(SHAPE, CPU) is None


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 0}', '{"a": "8"}', ""])
def test_a_broken_file_is_said_in_one_line_and_replaced(content: str) -> None:
    path = tuning_cache.cache_path()
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.warns(UserWarning, match="ignoring the kernel tuning") as caught:
        assert tuning_cache.tuned_choice(SHAPE, CPU) is None
    assert "\n" not in str(caught[0].message)
    with pytest.warns(UserWarning, match="ignoring"):
        tuned_by(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuning_cache.tuned_choice(SHAPE, CPU) == 1


@pytest.mark.slow
def test_processes_that_tune_at_once_keep_each_others_choices() -> None:
    code = (
        "import sys, torch; from vlmprof.kernels.common.tuning_cache import Shape\n"
        "from vlmprof.kernels.tools.tune import tune\n"
        "for n in range(20):\n"
        "    shape = Shape(int(sys.argv[1]), n, 1, torch.float32, 1000)\n"
        "    tune(shape, torch.device('cpu'), float, lambda call: 1.0)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(d)], env=os.environ) for d in (1, 2)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert len(json.loads(tuning_cache.cache_path().read_text())) == 40
    assert {path.name for path in tuning_cache.cache_path().parent.iterdir()} == {
        "tuning.json",
        "tuning.json.lock",
    }


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VLMPROF_TUNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning_cache.cache_path() == tmp_path / "vlmprof" / "ss2d-tuning.json"


def test_a_table_that_is_shipped_serves_until_the_user_tunes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A table is a cache file of the same kernels, of any version of torch and Triton."""
    key = tuning_cache.stored_key(SHAPE, CPU)
    versions = f"torch {torch.__version__} triton {tuning_cache._triton_version()}"
    shipped = tmp_path / "tuned"
    shipped.mkdir()
    tables = {
        "some-card": {key.replace(versions, "torch 9.0.0 triton 9.0.0"): 12},
        "older": {key.replace(f"kernels {tuning_cache.KERNELS}", "kernels 0"): 1},
        "another-card": {key.replace("cpu", "Another Card"): 2},
        "other-size": {key.replace("positions<2^12", "positions<2^13"): 3},
        "no-table": {"positions": 4},
    }
    for name, table in tables.items():
        (shipped / f"{name}.json").write_text(json.dumps(table))
    assert tuning_cache.tuned_choice(SHAPE, CPU) is None
    monkeypatch.setattr(tuning_cache, "SHIPPED", shipped)
    tuning_cache.tuned_choice.cache_clear()
    assert tuning_cache.tuned_choice(SHAPE, CPU) == 12
    tuned_by(lambda tiles: abs(tiles - 6.0))
    assert tuning_cache.tuned_choice(SHAPE, CPU) == 6


def test_what_tune_writes_can_be_shipped_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tuned_by(lambda tiles: abs(tiles - 4.0))
    shipped = tmp_path / "tuned"
    shipped.mkdir()
    tuning_cache.cache_path().rename(shipped / "card.json")
    monkeypatch.setattr(tuning_cache, "SHIPPED", shipped)
    tuning_cache.tuned_choice.cache_clear()
    assert tuning_cache.tuned_choice(SHAPE, CPU) == 4


def test_a_product_is_launched_with_the_tile_that_was_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from vlmprof.kernels.block import linear_tiles
    from vlmprof.kernels.tools import tune as tuning
    from vlmprof.kernels.tools.block_cases import block_products

    tried: list[linear_tiles.Tile] = []

    def run(x: torch.Tensor, *arguments: object) -> None:
        assert isinstance(arguments[-1], linear_tiles.Tile)
        tried.append(arguments[-1])

    def timer(call: Callable[[], object]) -> float:
        call()
        return 1.0 if tried[-1] == linear_tiles.LARGE else 2.0

    monkeypatch.setattr(tuning, "linear_fused", run)
    monkeypatch.setattr(tuning, "why_not_triton", lambda device: None)
    for product in block_products(96):
        tried.clear()
        shape = linear_tiles.Product(
            1000, product.depth, product.features, product.normed, product.residual, torch.bfloat16
        )
        assert linear_tiles.tile_for(shape, CPU) is linear_tiles.by_rule(shape) is not linear_tiles.LARGE
        found = tuning.tune_linear(product, 1000, torch.bfloat16, CPU, timer)
        assert found.tile == linear_tiles.LARGE.label()
        assert len(found.seconds) == len(tried) <= 6
        assert linear_tiles.tile_for(shape, CPU) is linear_tiles.LARGE


@pytest.mark.slow
def test_a_launch_uses_what_tuning_found_and_says_so(
    interpreted_environment: dict[str, str], tmp_path: Path
) -> None:
    (printed,) = interpret(INTERPRETED, tmp_path, interpreted_environment, warnings="error::UserWarning")
    assert json.loads(printed) == [1, "rule", 3, 3, "tuning", True]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_the_command_says_that_it_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    result = CliRunner().invoke(command.app, ["tune"])
    assert isinstance(result.exception, UserError)
    assert "triton" in str(result.exception)


def test_the_table_of_an_h200_says_what_was_fastest_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `reports/h200` has it, and only for kernels of this version and tiles that are offered."""
    pytest.importorskip("triton")
    from vlmprof.kernels.block import linear_tiles

    monkeypatch.setattr(tuning_cache, "_device_name", lambda device: "NVIDIA H200")
    tables = {path.name: json.loads(path.read_text()) for path in tuning_cache.SHIPPED.glob("*.json")}
    measured = Path(__file__).parents[2] / "reports/h200/ss2d-tuning.json"
    assert tables == {"h200.json": json.loads(measured.read_text())}
    for key, number in tables["h200.json"].items():
        card, versions, size = key.split(" | ")
        assert (card, versions.split()[-1]) == ("NVIDIA H200", str(tuning_cache.KERNELS))
        op, *numbers = re.fullmatch(r"(.*) depth=(\d+) features=(\d+) bfloat16 rows<2\^(\d+)", size).groups()  # type: ignore[union-attr]
        depth, features, bits = map(int, numbers)
        product = linear_tiles.Product(
            2**bits - 1, depth, features, "norm_" in op, "residual" in op, torch.bfloat16
        )
        assert product.key() == size
        assert linear_tiles.tile_for(product, CPU) == linear_tiles.candidates(product, CPU)[number - 1]
