"""VMamba against the authors' own outputs (tests/golden), and its own invariants."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.helpers.encoders import feature_maps, logits
from tests.helpers.golden import golden_image, load, load_golden_weights, relative_error
from tests.helpers.interpreted import interpret
from vlmprof.backbones import create_backbone
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.vmamba import PIECES, SS2D
from vlmprof.settings import KernelBackend

VARIANTS = load("vmamba_variants.json")
OFFICIAL = {
    "vmamba-t": load("vmamba_t.json")["vmamba-t"],
    "vmamba-t-v0": load("vmamba_t_v0.json")["vmamba-t-v0"],
}


def official(name: str, kernels: KernelBackend = "torch") -> Backbone:
    """Our model with the weights that the authors' model had."""
    module = create_backbone(name, levels="all", classifier=True, kernels=kernels)
    load_golden_weights(module)
    return module


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_is_the_official_one(name: str) -> None:
    module = create_backbone(name, levels="all", classifier=True, device="meta")
    shapes = {key: list(tensor.shape) for key, tensor in module.state_dict().items()}
    assert shapes == OFFICIAL[name]["keys"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("vmamba-b") else [])
        for name in sorted({*OFFICIAL, *VARIANTS})
    ],
)
def test_every_level_and_the_logits_agree(name: str) -> None:
    module = official(name)
    cases = [case for golden in (OFFICIAL, VARIANTS) if name in golden for case in golden[name]["cases"]]
    for case in cases:
        images = golden_image(*case["hw"])
        outputs = [*feature_maps(module, images), logits(module, images)]
        expected = [*case["stages_channel_first"], case["logits"]]
        assert len(outputs) == len(expected)
        assert max(map(relative_error, outputs, expected)) < 1e-4


def test_reference_kernels_give_the_same() -> None:
    vectorised, plain = official("vmamba-t"), official("vmamba-t", kernels="reference")
    images = golden_image(33, 71)
    torch.testing.assert_close(logits(vectorised, images), logits(plain, images), rtol=1e-4, atol=1e-4)
    assert plain.backends == dict.fromkeys(PIECES, "reference")


INTERPRETED = """
import torch
from vlmprof.backbones.vmamba import Block, ConvolutionNorms, _overlapping_embedding
torch.manual_seed(0)
for gate, d_state, mlp_ratio in ((False, 1, 4), (True, 3, 0)):
    config = {"d_state": d_state, "ssm_ratio": 2, "gate": gate, "mlp_ratio": mlp_ratio}
    fused, plain = Block(16, config, "triton"), Block(16, config, "torch")
    for parameter in fused.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(fused.state_dict(), strict=True)
    for height, width in ((3, 5), (1, 7)):
        x = torch.randn(2, height, width, 16)
        with torch.inference_mode():
            torch.testing.assert_close(fused(x), plain(x), rtol=1e-4, atol=1e-5)
        print(gate, height, width)
fused = ConvolutionNorms(_overlapping_embedding(16), "triton")
plain = ConvolutionNorms(_overlapping_embedding(16), "torch")
plain.load_state_dict(fused.state_dict(), strict=True)
images = torch.randn(2, 23, 13, 3)
with torch.inference_mode():
    torch.testing.assert_close(fused(images), plain(images), rtol=1e-4, atol=1e-5)
    in_order = torch.nn.Sequential(*plain)
    assert torch.equal(plain(images), in_order(images))
print("embedding")
"""


@pytest.mark.slow
def test_a_block_of_fused_kernels_gives_the_same(
    interpreted_environment: dict[str, str], tmp_path: Path
) -> None:
    """Both versions of the block, at odd sizes, from one state dict, in Triton's interpreter."""
    assert len(interpret(INTERPRETED, tmp_path, interpreted_environment)) == 5


def test_first_version_cuts_odd_edges_off() -> None:
    encoder = create_backbone("vmamba-t-v0", image_size=(45, 71))
    assert encoder(golden_image(45, 71)).shape == (1, 2 * 4, 384)
    assert encoder.facts.num_tokens(45, 71) == 8


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (97, 64)])
def test_tokens_are_the_tapped_level_at_any_size(height: int, width: int) -> None:
    encoder = create_backbone("vmamba-t", level=2, levels="all", image_size=(height, width))
    images = golden_image(height, width)
    tokens, maps = encoder(images), feature_maps(encoder, images)
    assert [level.shape[1] for level in maps] == [96, 192, 384, 768]
    assert tokens.shape == (1, encoder.facts.num_tokens(height, width), 192)
    tapped = maps[1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, torch.nn.functional.layer_norm(tapped, (192,)))


def test_a_batch_is_its_images_one_by_one() -> None:
    encoder = create_backbone("vmamba-t")
    images = torch.cat((golden_image(48, 64), golden_image(48, 64).flip(-1)))
    torch.testing.assert_close(encoder(images)[1:], encoder(images[1:]), rtol=1e-4, atol=1e-4)


def test_scan_parameters_stay_in_float32() -> None:
    mixer = create_backbone("vmamba-t", dtype=torch.bfloat16).get_submodule("layers.0.blocks.0.op")
    assert isinstance(mixer, SS2D)
    assert {mixer.A_logs.dtype, mixer.Ds.dtype, mixer.dt_projs_bias.dtype} == {torch.float32}
    assert mixer.out_norm.weight.dtype == torch.bfloat16


def test_what_scans_prepare_is_kept_though_the_model_was_made_in_inference_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    vectorized = import_module("vlmprof.kernels.ss2d.vectorized")
    pack = vectorized._prepare

    def counted(*given: object) -> object:
        made.append(given)
        return pack(*given)

    monkeypatch.setattr(vectorized, "_prepare", counted)
    with torch.inference_mode():
        encoder = create_backbone("vmamba-t", image_size=(32, 32), kernels="torch")
        blocks = sum(isinstance(module, SS2D) for module in encoder.modules())
        for _ in range(3):
            encoder(torch.zeros(1, 3, 32, 32))
    assert len(made) == blocks > 5
