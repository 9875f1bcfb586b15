"""The table of backbones that are built by transformers, as their authors published them. No torch.

`config` is what transformers' configuration of that `model_type` takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmprof.backbones.catalog import DEFAULT_LEVEL, BackboneFacts


def _plain(
    family: str,
    size: str,
    parameters: int,
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
        name=f"{family.lower().replace(' ', '')}-{size.lower()}",
        family=family,
        size=size,
        embed_dim=d_model,
        stride=patch,
        min_size=patch,
        multiple=patch,
        parameters=parameters,
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
    """Radford et al., arXiv 2103.00020: towers of openai/clip-vit-base-patch16, -large-patch14-336."""
    for size, parameters, d_model, depth, heads, patch, side in (
        ("B", 85_799_424, 768, 12, 12, 16, 224),
        ("L", 303_507_456, 1024, 24, 16, 14, 336),
    ):
        yield _plain(
            "CLIP",
            size,
            parameters,
            model_type="clip_vision_model",
            d_model=d_model,
            depth=depth,
            heads=heads,
            patch=patch,
            image_size=side,
            intermediate_size=4 * d_model,
        )


def _siglip() -> Iterator[BackboneFacts]:
    """Zhai et al., arXiv 2303.15343: google/siglip-base-patch16-224, -large-patch16-256, -so400m-patch14-384.

    Parameters with the attention-pooling head, which the tokens do not pass and which is left out.
    """
    for size, parameters, d_model, depth, heads, mlp, patch, side in (
        ("B", 92_884_224, 768, 12, 12, 3072, 16, 224),
        ("L", 315_956_224, 1024, 24, 16, 4096, 16, 256),
        ("So400m", 428_225_600, 1152, 27, 16, 4304, 14, 384),
    ):
        yield _plain(
            "SigLIP",
            size,
            parameters,
            model_type="siglip_vision_model",
            d_model=d_model,
            depth=depth,
            heads=heads,
            patch=patch,
            image_size=side,
            intermediate_size=mlp,
        )


def _siglip2() -> Iterator[BackboneFacts]:
    """Tschannen et al., arXiv 2502.14786: google/siglip2-base-patch16-naflex and -so400m-patch16-naflex.

    Parameters with the attention-pooling head, which the tokens do not pass and which is left out.
    """
    for size, parameters, d_model, depth, heads, mlp in (
        ("B", 92_930_304, 768, 12, 12, 3072),
        ("So400m", 427_888_064, 1152, 27, 16, 4304),
    ):
        yield _plain(
            "SigLIP 2",
            size,
            parameters,
            model_type="siglip2_vision_model",
            d_model=d_model,
            depth=depth,
            heads=heads,
            patch=16,
            module="siglip2",
            num_patches=256,
            intermediate_size=mlp,
        )


def _dinov2() -> Iterator[BackboneFacts]:
    """Oquab et al., arXiv 2304.07193: facebook/dinov2-small, -base, -large and -giant."""
    for size, parameters, d_model, depth, heads in (
        ("S", 22_056_576, 384, 12, 6),
        ("B", 86_580_480, 768, 12, 12),
        ("L", 304_368_640, 1024, 24, 16),
        ("G", 1_136_480_768, 1536, 40, 24),
    ):
        yield _plain(
            "DINOv2",
            size,
            parameters,
            model_type="dinov2",
            d_model=d_model,
            depth=depth,
            heads=heads,
            patch=14,
            image_size=518,
            use_swiglu_ffn=size == "G",
        )


def _dinov3() -> Iterator[BackboneFacts]:
    """Siméoni et al., arXiv 2508.10104: facebook/dinov3-vits16, -vits16plus, -vitb16, …."""
    for size, parameters, d_model, depth, heads, mlp, gated in (
        ("S", 21_596_544, 384, 12, 6, 1536, False),
        ("S+", 28_692_864, 384, 12, 6, 1536, True),
        ("B", 85_660_416, 768, 12, 12, 3072, False),
        ("L", 303_129_600, 1024, 24, 16, 4096, False),
        ("H+", 840_592_640, 1280, 32, 20, 5120, True),
    ):
        yield _plain(
            "DINOv3",
            size,
            parameters,
            model_type="dinov3_vit",
            d_model=d_model,
            depth=depth,
            heads=heads,
            patch=16,
            image_size=224,
            intermediate_size=mlp,
            num_register_tokens=4,
            key_bias=False,
            use_gated_mlp=gated,
            hidden_act="silu" if gated else "gelu",
        )


def _levels(
    family: str, size: str, parameters: int, dims: tuple[int, ...], rounding: str, config: dict[str, Any]
) -> BackboneFacts:
    return BackboneFacts(
        name=f"{family.lower().replace(' ', '')}-{size.lower()}",
        family=family,
        size=size,
        embed_dim=dims[DEFAULT_LEVEL - 1],
        stride=4 << (DEFAULT_LEVEL - 1),
        min_size=32,
        multiple=1,
        parameters=parameters,
        module="vlmprof.backbones.transformers_levels",
        config=config,
        level_dims=dims,
        level=DEFAULT_LEVEL,
        rounding=rounding,
    )


def _swin() -> Iterator[BackboneFacts]:
    """Liu et al., arXiv 2103.14030: microsoft/swin-*-patch4-window7-224, with 1000 classes."""
    for size, parameters, d_model, depths, heads in (
        ("T", 28_288_354, 96, [2, 2, 6, 2], [3, 6, 12, 24]),
        ("S", 49_606_258, 96, [2, 2, 18, 2], [3, 6, 12, 24]),
        ("B", 87_768_224, 128, [2, 2, 18, 2], [4, 8, 16, 32]),
        ("L", 196_532_476, 192, [2, 2, 18, 2], [6, 12, 24, 48]),
    ):
        config = {
            "model_type": "swin",
            "embed_dim": d_model,
            "depths": depths,
            "num_heads": heads,
            "window_size": 7,
            "drop_path_rate": 0.0,
        }
        dims = tuple(d_model << level for level in range(4))
        yield _levels("Swin", size, parameters, dims, "up", config)


def _convnextv2() -> Iterator[BackboneFacts]:
    """Woo et al., arXiv 2301.00808: facebook/convnextv2-*-1k-224, with 1000 classes."""
    for size, parameters, d_model, depths in (
        ("T", 28_635_496, 96, [3, 3, 9, 3]),
        ("B", 88_717_800, 128, [3, 3, 27, 3]),
        ("L", 197_956_840, 192, [3, 3, 27, 3]),
        ("H", 660_289_640, 352, [3, 3, 27, 3]),
    ):
        dims = tuple(d_model << level for level in range(4))
        config = {"model_type": "convnextv2", "num_stages": 4, "hidden_sizes": list(dims), "depths": depths}
        yield _levels("ConvNeXt V2", size, parameters, dims, "down", config)


ENTRIES: dict[str, BackboneFacts] = {
    facts.name: facts
    for family in (_clip, _siglip, _siglip2, _dinov2, _dinov3, _swin, _convnextv2)
    for facts in family()
}
