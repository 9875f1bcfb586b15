"""MambaVision against the authors' own outputs (tests/golden), and its own invariants."""

import pytest
import torch

from tests.helpers.encoders import after_down_sampling, feature_maps, logits
from tests.helpers.golden import golden_image, load, load_golden_weights, relative_error
from vlmprof.backbones import create_backbone

OFFICIAL = load("mambavision_t.json")["mambavision-t"]
ODD = load("mambavision_odd.json")


def test_state_dict_is_the_official_one() -> None:
    module = create_backbone("mambavision-t", levels="all", classifier=True, device="meta")
    assert {key: list(tensor.shape) for key, tensor in module.state_dict().items()} == OFFICIAL["keys"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mambavision-t", "mambavision-b"])
def test_every_level_and_the_logits_agree(name: str) -> None:
    module = create_backbone(name, levels="all", classifier=True, kernels="torch")
    load_golden_weights(module)
    cases = ODD[name]["cases"] + (OFFICIAL["cases"] if name == "mambavision-t" else [])
    for case in cases:
        images = golden_image(*case["hw"])
        outputs = after_down_sampling(module, images)
        assert len(outputs) == len(case["levels"])
        assert max(map(relative_error, outputs, case["levels"])) < 1e-4
        if "logits" in case:
            assert relative_error(logits(module, images), case["logits"]) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(32, 32), (61, 113)])
def test_tokens_are_the_tapped_level_at_any_size(height: int, width: int) -> None:
    whole = create_backbone("mambavision-t", levels="all", image_size=(height, width))
    cut = create_backbone("mambavision-t", image_size=(height, width))
    images = golden_image(height, width)
    tokens, maps = whole(images), feature_maps(whole, images)
    assert [level.shape[1] for level in maps] == [80, 160, 320, 640]
    assert tokens.shape == (1, whole.facts.num_tokens(height, width), 320)
    assert torch.equal(tokens, maps[2].flatten(2).transpose(1, 2))
    assert torch.equal(tokens, cut(images))
    assert cut.backends == {"selective_scan": "torch"}


def test_reference_kernels_give_the_same() -> None:
    fast, plain = (create_backbone("mambavision-t", kernels=kernels) for kernels in ("torch", "reference"))
    images = golden_image(64, 96)
    torch.testing.assert_close(fast(images), plain(images), rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_finite() -> None:
    encoder = create_backbone("mambavision-b", dtype=torch.bfloat16)
    assert encoder(golden_image(64, 64).bfloat16()).isfinite().all()
