"""The VLM's stages, their shapes, and what they cost in memory."""

import resource
import subprocess
import sys
from typing import Any

import pytest
import torch

from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.settings import StageName
from vlmprof.vlm.model import VLM, create_vlm
from vlmprof.vlm.workload import Workload


def small_vlm(backbone: str, height: int, width: int, **rest: Any) -> VLM:
    return create_vlm(Workload(backbone, "llama-23m", height, width, **{"dtype": "float32", **rest}))


@pytest.mark.parametrize(("logits", "positions"), [("all", 6 + 5), ("last", 1)])
def test_stages(logits: str, positions: int) -> None:
    vlm = small_vlm("vmamba-t", 32, 48, prompt_tokens=5, logits=logits)
    tokens = vlm.encode_image(torch.randn(2, 3, 32, 48))
    embeddings = vlm.project(tokens)
    answer = vlm.prefill(embeddings)
    assert tokens.shape == (2, 6, 384)
    assert embeddings.shape == (2, 6, 384)
    assert answer.shape == (2, positions, 32000)
    assert answer.isfinite().all()
    assert not answer.requires_grad
    assert vlm.backends["ss2d"] == "torch"
    assert set(vlm.backends.values()) == {"torch"}


def test_last_logits_are_the_last_of_all() -> None:
    every, last = (small_vlm("vit-t", 32, 32, prompt_tokens=3, logits=logits) for logits in ("all", "last"))
    tokens = torch.randn(1, 4, 192)
    torch.testing.assert_close(
        every.prefill(every.project(tokens))[:, -1:], last.prefill(last.project(tokens))
    )


def test_without_a_prompt_there_are_only_visual_tokens() -> None:
    vlm = small_vlm("vit-t", 32, 48)
    assert vlm.prefill(vlm.project(vlm.encode_image(torch.randn(1, 3, 32, 48)))).shape == (1, 6, 32000)


def test_weight_bytes_are_told_by_stage() -> None:
    vlm = small_vlm("vit-t", 32, 32, connector="mlp2", dtype="bfloat16")
    weights = vlm.weight_bytes()
    assert weights["connector"] == 2 * (192 * 384 + 384 + 384 * 384 + 384)
    assert weights["vision"] == 2 * (5_717_416 - 1000 * 193)
    assert weights["prefill"] == pytest.approx(2 * 22_909_824, abs=1000)


def test_unknown_logits_are_refused() -> None:
    with pytest.raises(UserError, match="last"):
        small_vlm("vit-t", 32, 32, logits="lost")


LIMITED = """
import importlib, os, resource, sys, torch
from vlmprof.vlm import PRELOAD
for module in PRELOAD: importlib.import_module(module)
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.workload import Workload
print(torch.cuda.is_initialized(), flush=True)

def run(side):
    torch.set_num_threads(2)
    bare = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (bare + 512 * 2**20,) * 2)
    try:
        vlm = create_vlm(Workload("vmamba-t", "llama-23m", side, side, dtype="float32"))
        vlm.prefill(vlm.project(vlm.encode_image(torch.zeros(1, 3, side, side))))
        print("fits", flush=True)
    except (RuntimeError, MemoryError) as problem:
        print("out of memory" if "memory" in str(problem) else problem, flush=True)

for side in map(int, sys.argv[1:]):
    child = os.fork()  # a process of its own for each limit, and the libraries imported once
    if not child:
        run(side)
        os._exit(0)
    os.waitpid(child, 0)
"""
LINUX = sys.platform.startswith("linux")
SIDES = {256: "fits", 2048: "out of memory"} if LINUX else {}


@pytest.fixture(scope="module")
def preloaded() -> list[str]:
    """Of a process that preloads: whether it used a GPU, and how each side ended within 512 MiB."""
    command = [sys.executable, "-c", LIMITED, *map(str, SIDES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="only Linux limits a process's data")
def test_the_small_vlm_fits_512_mib_at_256_and_not_at_2048(preloaded: list[str]) -> None:
    assert resource.RLIMIT_DATA
    assert preloaded[1:] == list(SIDES.values())


@pytest.mark.slow
def test_preloading_touches_no_gpu(preloaded: list[str]) -> None:
    assert preloaded[0] == "False"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vit-t", "vitdet-b", "vmamba-t", "vmamba-t-v0", "mambavision-t"])
def test_autocast_computes_in_16_bits_what_float32_does(backbone: str) -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = small_vlm(backbone, 64, 64, stages=("vision", "connector"))
    narrow = small_vlm(backbone, 64, 64, dtype="bfloat16", autocast=True, stages=("vision", "connector"))
    weights = [*narrow.vision.parameters(), *narrow.connector.parameters()]
    assert {weight.dtype for weight in weights} == {torch.float32}
    wanted = exact.project(exact.encode_image(images))
    embeddings = narrow.project(narrow.encode_image(images))
    assert embeddings.dtype == torch.bfloat16
    assert 0 < float((embeddings - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("backbone", ["vit-t", "vmamba-t"])
@pytest.mark.parametrize("stages", [("vision", "connector"), ("vision", "connector", "prefill", "decode")])
def test_what_is_counted_is_what_is_built(backbone: str, stages: tuple[StageName, ...]) -> None:
    workload = Workload(backbone, "llama-23m", 64, 96, stages=stages, prompt_tokens=3, batch_size=2)
    vlm = create_vlm(workload)
    counted = count(workload, kernels="torch")
    weights = {stage: cost.weight_bytes for stage, cost in counted.stages.items() if stage != "decode"}
    assert weights == vlm.weight_bytes()
    images = torch.zeros(2, 3, 64, 96, dtype=torch.bfloat16)
    assert vlm.encode_image(images).shape[1] == counted.visual_tokens
