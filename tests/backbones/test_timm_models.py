"""MaxViT and any other encoder through timm, against timm itself. Skipped where the extra is missing."""

import pytest
import torch

from tests.helpers.encoders import feature_maps
from tests.helpers.golden import golden_image
from vlmprof.backbones import create_backbone, facts
from vlmprof.errors import UserError

timm = pytest.importorskip("timm", reason="the optional extra `timm` is not installed")


@pytest.mark.parametrize("name", ["maxvit-t", "maxvit-s", "maxvit-b", "maxvit-l"])
def test_parameters_and_sizes_of_maxvit(name: str) -> None:
    known = facts(name)
    with torch.device("meta"):
        whole = timm.create_model(known.config["timm_name"])
    assert sum(parameter.numel() for parameter in whole.parameters()) == known.parameters
    assert [entry["num_chs"] for entry in whole.feature_info[1:]] == list(known.level_dims)


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_maxvit_agrees_with_timm(size: tuple[int, int]) -> None:
    ours = create_backbone("maxvit-t", image_size=size)
    theirs = timm.create_model("maxvit_tiny_tf_224", img_size=size).eval()
    renamed = {
        name.replace("stages_", "stages."): tensor
        for name, tensor in ours.get_submodule("model").state_dict().items()
    }
    loaded = theirs.load_state_dict(renamed, strict=False)
    assert not loaded.unexpected_keys
    assert all(name.startswith(("stages.3", "norm", "head")) for name in loaded.missing_keys)
    images = golden_image(*size)
    with torch.inference_mode():
        x = theirs.stem(images)
        for stage in theirs.stages[:3]:
            x = stage(x)
        tokens = ours(images)
    torch.testing.assert_close(tokens, x.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm:resnet18", (64, 96)),
        ("timm:swin_tiny_patch4_window7_224", (224, 224)),
        ("timm:vit_tiny_patch16_224", (64, 96)),
        ("timm:vit_small_patch16_dinov3", (64, 96)),
    ],
)
def test_any_timm_encoder(name: str, size: tuple[int, int]) -> None:
    known = facts(name)
    tokens = create_backbone(name, image_size=size)(golden_image(*size))
    assert tokens.shape == (1, known.num_tokens(*size), known.embed_dim)
    assert tokens.isfinite().all()
    maps = create_backbone(name, image_size=size, levels="all")
    if known.level_dims:
        shapes = [level.shape[1] for level in feature_maps(maps, golden_image(*size))]
        assert shapes == list(known.level_dims)


def test_an_unknown_timm_model_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="resnet50"):
        facts("timm:resnet55")
