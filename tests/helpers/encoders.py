"""What tests look at inside an encoder beside its tokens."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from vlmprof.backbones.mambavision import Level, MambaVision


def feature_maps(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Every built level's output, channels first, of an encoder that has levels."""
    assert callable(encoder.feature_maps)
    return list(encoder.feature_maps(images))


def logits(encoder: nn.Module, images: Tensor) -> Tensor:
    """(batch, classes) of an encoder that was built with its classifier."""
    assert callable(encoder.logits)
    scores = encoder.logits(images)
    assert isinstance(scores, Tensor)
    return scores


def wrapped(encoder: nn.Module) -> PreTrainedModel:
    """The model of transformers that an encoder runs."""
    assert isinstance(encoder.model, PreTrainedModel)
    return encoder.model


def after_down_sampling(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """MambaVision's patch embedding, then each level's output after that level's own down-sampling."""
    assert isinstance(encoder, MambaVision)
    outputs = [encoder.patch_embed(images)]
    for level, features in zip(encoder.levels, encoder.feature_maps(images), strict=True):
        assert isinstance(level, Level)
        outputs.append(level.downsample(features) if level.downsample else features)
    return outputs
