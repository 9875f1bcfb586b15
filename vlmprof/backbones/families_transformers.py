"""The table of backbones that are built by transformers, as their authors published them. No torch.

`config` is what transformers' configuration of that `model_type` takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmprof.backbones.facts import BackboneFacts, catalog_name, doubling, hierarchical


def _plain(
    family: str,
    size: str,
    parameters: int,
    pretrained: str,
    *,
    model_type: str,
    d_model: int,
    depth: int,
    heads: int,
    patch: int,
    module: str = "transformers_plain",
    **config: Any,
) -> BackboneFacts:
    return BackboneFacts(
        name=catalog_name(family, size),
        family=family,
        size=size,
        embed_dim=d_model,
        stride=patch,
        min_size=patch,
        multiple=patch,
        parameters=parameters,
        pretrained=pretrained,
        module=f"vlmprof.backbones.{module}",
        config={
            "model_type": model_type,
            "hidden_size": d_model,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "patch_size": patch,
            **config,
        },
    )


def _clip() -> Iterator[BackboneFacts]:
    """Radford et al., arXiv 2103.00020; the vision towers."""
    for size, parameters, d_model, depth, heads, patch, side, weights in (
        ("B", 85_799_424, 768, 12, 12, 16, 224, "openai/clip-vit-base-patch16"),
        ("L", 303_507_456, 1024, 24, 16, 14, 336, "openai/clip-vit-large-patch14-336"),
    ):
        yield _plain(
            "CLIP", size, parameters, weights, model_type="clip_vision_model", d_model=d_model, depth=depth,
            heads=heads, patch=patch, image_size=side, intermediate_size=4 * d_model
        )  # fmt: skip


def _siglip() -> Iterator[BackboneFacts]:
    """Zhai et al., arXiv 2303.15343.

    Parameters with the attention-pooling head, which the tokens do not pass and which is left out.
    """
    for size, parameters, d_model, depth, heads, mlp, patch, side, weights in (
        ("B", 92_884_224, 768, 12, 12, 3072, 16, 224, "google/siglip-base-patch16-224"),
        ("L", 315_956_224, 1024, 24, 16, 4096, 16, 256, "google/siglip-large-patch16-256"),
        ("So400m", 428_225_600, 1152, 27, 16, 4304, 14, 384, "google/siglip-so400m-patch14-384"),
    ):
        yield _plain(
            "SigLIP", size, parameters, weights, model_type="siglip_vision_model", d_model=d_model,
            depth=depth, heads=heads, patch=patch, image_size=side, intermediate_size=mlp
        )  # fmt: skip


def _siglip2() -> Iterator[BackboneFacts]:
    """Tschannen et al., arXiv 2502.14786.

    Parameters with the attention-pooling head, which the tokens do not pass and which is left out.
    """
    for size, parameters, d_model, depth, heads, mlp, weights in (
        ("B", 92_930_304, 768, 12, 12, 3072, "google/siglip2-base-patch16-naflex"),
        ("So400m", 427_888_064, 1152, 27, 16, 4304, "google/siglip2-so400m-patch16-naflex"),
    ):
        yield _plain(
            "SigLIP 2", size, parameters, weights, model_type="siglip2_vision_model", d_model=d_model,
            depth=depth, heads=heads, patch=16, module="siglip2", num_patches=256, intermediate_size=mlp
        )  # fmt: skip


def _dinov2() -> Iterator[BackboneFacts]:
    """Oquab et al., arXiv 2304.07193."""
    for size, parameters, d_model, depth, heads, weights in (
        ("S", 22_056_576, 384, 12, 6, "facebook/dinov2-small"),
        ("B", 86_580_480, 768, 12, 12, "facebook/dinov2-base"),
        ("L", 304_368_640, 1024, 24, 16, "facebook/dinov2-large"),
        ("G", 1_136_480_768, 1536, 40, 24, "facebook/dinov2-giant"),
    ):
        yield _plain(
            "DINOv2", size, parameters, weights, model_type="dinov2", d_model=d_model, depth=depth,
            heads=heads, patch=14, image_size=518, use_swiglu_ffn=size == "G"
        )  # fmt: skip


def _dinov3() -> Iterator[BackboneFacts]:
    """Siméoni et al., arXiv 2508.10104."""
    for size, parameters, d_model, depth, heads, mlp, gated, weights in (
        ("S", 21_596_544, 384, 12, 6, 1536, False, "facebook/dinov3-vits16-pretrain-lvd1689m"),
        ("S+", 28_692_864, 384, 12, 6, 1536, True, "facebook/dinov3-vits16plus-pretrain-lvd1689m"),
        ("B", 85_660_416, 768, 12, 12, 3072, False, "facebook/dinov3-vitb16-pretrain-lvd1689m"),
        ("L", 303_129_600, 1024, 24, 16, 4096, False, "facebook/dinov3-vitl16-pretrain-lvd1689m"),
        ("H+", 840_592_640, 1280, 32, 20, 5120, True, "facebook/dinov3-vith16plus-pretrain-lvd1689m"),
    ):
        yield _plain(
            "DINOv3", size, parameters, weights, model_type="dinov3_vit", d_model=d_model, depth=depth,
            heads=heads, patch=16, image_size=224, intermediate_size=mlp, num_register_tokens=4,
            key_bias=False, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu"
        )  # fmt: skip


def _swin() -> Iterator[BackboneFacts]:
    """Liu et al., arXiv 2103.14030; parameters with 1000 classes."""
    for size, parameters, d_model, depths, heads, weights in (
        ("T", 28_288_354, 96, [2, 2, 6, 2], [3, 6, 12, 24], "microsoft/swin-tiny-patch4-window7-224"),
        ("S", 49_606_258, 96, [2, 2, 18, 2], [3, 6, 12, 24], "microsoft/swin-small-patch4-window7-224"),
        ("B", 87_768_224, 128, [2, 2, 18, 2], [4, 8, 16, 32], "microsoft/swin-base-patch4-window7-224"),
        ("L", 196_532_476, 192, [2, 2, 18, 2], [6, 12, 24, 48], "microsoft/swin-large-patch4-window7-224"),
    ):
        config = {
            "model_type": "swin",
            "embed_dim": d_model,
            "depths": depths,
            "num_heads": heads,
            "window_size": 7,
            "drop_path_rate": 0.0,
        }
        yield hierarchical(
            "Swin",
            size,
            doubling(d_model),
            module="transformers_levels",
            parameters=parameters,
            config=config,
            pretrained=weights,
        )


def _convnextv2() -> Iterator[BackboneFacts]:
    """Woo et al., arXiv 2301.00808; parameters with 1000 classes."""
    for size, parameters, d_model, depths, weights in (
        ("T", 28_635_496, 96, [3, 3, 9, 3], "facebook/convnextv2-tiny-1k-224"),
        ("B", 88_717_800, 128, [3, 3, 27, 3], "facebook/convnextv2-base-1k-224"),
        ("L", 197_956_840, 192, [3, 3, 27, 3], "facebook/convnextv2-large-1k-224"),
        ("H", 660_289_640, 352, [3, 3, 27, 3], "facebook/convnextv2-huge-1k-224"),
    ):
        dims = doubling(d_model)
        yield hierarchical(
            "ConvNeXt V2",
            size,
            dims,
            module="transformers_levels",
            parameters=parameters,
            config={
                "model_type": "convnextv2",
                "num_stages": 4,
                "hidden_sizes": list(dims),
                "depths": depths,
            },
            pretrained=weights,
            rounding="down",
        )


FAMILIES = (_clip, _siglip, _siglip2, _dinov2, _dinov3, _swin, _convnextv2)
