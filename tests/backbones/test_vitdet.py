"""ViTDet against detectron2's own outputs (tests/golden)."""

import pytest

from tests.helpers.golden import golden_image, golden_weight, load, relative_error
from vlmprof.backbones import create_backbone
from vlmprof.backbones.vitdet import official_names


@pytest.mark.slow
def test_agrees_with_detectron2() -> None:
    golden = load("vitdet_b.json")["vitdet-b"]
    encoder = create_backbone("vitdet-b")
    state = encoder.state_dict()
    official = official_names(list(state))
    assert {official[name]: list(tensor.shape) for name, tensor in state.items()} == golden["keys"]
    encoder.load_state_dict({name: golden_weight(official[name], state[name]) for name in state})
    for case in golden["cases"]:
        height, width = case["hw"]
        tokens = encoder(golden_image(height, width))
        feature_map = tokens.transpose(1, 2).unflatten(2, (height // 16, width // 16))
        assert relative_error(feature_map, case["output"]) < 1e-4
