"""The plain ViT against timm's and transformers'."""

import pytest
import torch
from torch import Tensor
from transformers import ViTConfig, ViTModel

from tests.helpers.encoders import logits
from tests.helpers.golden import golden_image
from tests.helpers.vit_weights import fresh, transformers_state
from vlmprof.backbones import create_backbone


def close(ours: Tensor, theirs: Tensor) -> None:
    error = (ours - theirs).abs().max() / theirs.std()
    assert error < 1e-4, f"relative error {error:.1e}"


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (272, 256)])
def test_agrees_with_timm(size: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm", reason="the optional extra `timm` is not installed")
    ours = fresh("vit-t")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=1000, dynamic_img_size=True).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = golden_image(*size)
    with torch.inference_mode():
        close(ours(images), theirs.forward_features(images)[:, 1:])
        close(logits(ours, images), theirs(images))


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_agrees_with_transformers(size: tuple[int, int]) -> None:
    """At another resolution transformers is given our positions: it interpolates in its own way."""
    ours = fresh("vit-s", image_size=size)
    config = ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        image_size=size,
        layer_norm_eps=1e-6,
    )
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(transformers_state(ours, theirs), strict=True)
    images = golden_image(*size)
    with torch.inference_mode():
        close(ours(images), theirs(images).last_hidden_state[:, 1:])


def test_positions_are_interpolated_once_per_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = create_backbone("vit-t", image_size=(96, 160))

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("interpolated in the timed call")

    monkeypatch.setattr(torch.nn.functional, "interpolate", fail)
    assert encoder(golden_image(96, 160)).shape == (1, 60, 192)
