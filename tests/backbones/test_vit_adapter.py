"""ViT-Adapter against the authors' own outputs (tests/golden)."""

import pytest
import torch

from tests.helpers.encoders import feature_maps
from tests.helpers.golden import golden_image, load, load_golden_weights, relative_error
from vlmprof.backbones import create_backbone


@pytest.mark.slow
def test_agrees_with_the_authors() -> None:
    golden = load("vit_adapter.json")["vit-adapter-deit-b"]
    encoder = create_backbone("vit-adapter-deit-b")
    assert {key: list(tensor.shape) for key, tensor in encoder.state_dict().items()} == golden["keys"]
    load_golden_weights(encoder)
    for case in golden["cases"]:
        images = golden_image(*case["hw"])
        levels = feature_maps(encoder, images)
        assert len(levels) == len(case["levels"])
        assert max(map(relative_error, levels, case["levels"])) < 1e-4
        tokens = encoder(images)
        assert tokens.shape[1] == encoder.facts.num_tokens(*case["hw"])
        torch.testing.assert_close(tokens, levels[2].flatten(2).transpose(1, 2))


def test_bfloat16_stays_finite() -> None:
    encoder = create_backbone("vit-adapter-deit-b", dtype=torch.bfloat16, levels="all", level=1)
    tokens = encoder(golden_image(64, 32).bfloat16())
    assert tokens.shape == (1, 16 * 8, 768)
    assert tokens.isfinite().all()
