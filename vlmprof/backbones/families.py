"""The table of backbones: every published variant with its own sizes and parameter count. No torch.

Adding a family is one function here and one module with `build(facts, options)` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlmprof.backbones.facts import BackboneFacts, catalog_name, doubling, hierarchical


def _vit() -> Iterator[BackboneFacts]:
    """Dosovitskiy et al., arXiv 2010.11929, and DeiT's T and S; parameters as timm's `vit_*_patch*_224`."""
    sizes = {
        # d_model, depth, heads, patch, parameters with a 1000-class head, timm's name of the weights
        "T": (192, 12, 3, 16, 5_717_416, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        "S": (384, 12, 6, 16, 22_050_664, "vit_small_patch16_224.augreg_in1k"),
        "B": (768, 12, 12, 16, 86_567_656, "vit_base_patch16_224.augreg_in1k"),
        "L": (1024, 24, 16, 16, 304_326_632, "vit_large_patch16_224.augreg_in21k_ft_in1k"),
        "H": (1280, 32, 16, 14, 632_045_800, "vit_huge_patch14_224.mae"),
    }
    for size, (d_model, depth, heads, patch, parameters, weights) in sizes.items():
        yield BackboneFacts(
            name=catalog_name("ViT", size),
            family="ViT",
            size=size,
            embed_dim=d_model,
            stride=patch,
            min_size=patch,
            multiple=patch,
            parameters=parameters,
            module="vlmprof.backbones.vit",
            pretrained=f"https://huggingface.co/timm/{weights}/resolve/main/model.safetensors",
            config={"depth": depth, "heads": heads, "mlp_ratio": 4, "pretrained_size": 224},
        )


def _vitdet() -> Iterator[BackboneFacts]:
    """Li et al., arXiv 2203.16527; sizes and counts as in detectron2, without feature pyramid and heads."""
    sizes = {
        # d_model, depth, heads, parameters
        "B": (768, 12, 12, 85_889_024),
        "L": (1024, 24, 16, 303_432_704),
        "H": (1280, 32, 16, 631_116_800),
    }
    for size, (d_model, depth, heads, parameters) in sizes.items():
        yield BackboneFacts(
            name=catalog_name("ViTDet", size),
            family="ViTDet",
            size=size,
            embed_dim=d_model,
            stride=16,
            min_size=16,
            multiple=16,
            parameters=parameters,
            module="vlmprof.backbones.vitdet",
            config={"depth": depth, "heads": heads, "window": 14, "trained_size": 1024},
        )


def _vmamba() -> Iterator[BackboneFacts]:
    """Liu et al., arXiv 2401.10166; sizes and counts as in the authors' repository MzeroMiko/VMamba.

    The names follow its README: s2l15 has `ssm_ratio` 2 and 15 blocks in the third level. Two sets of
    sizes differ in more: v0 is the first version, with d_state 16, a gate, no MLP, and plain patches.
    """
    second = {"d_state": 1, "gate": False, "overlap": True, "mlp_ratio": 4}
    first = {"d_state": 16, "gate": True, "overlap": False, "mlp_ratio": 0}
    variants = (
        # suffix, size, first d_model, blocks in the third level, ssm_ratio, parameters with head, release
        ("", "T", 96, 5, 2, second, 30_705_832, "%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth"),
        ("", "S", 96, 15, 2, second, 50_147_752, "%23v2cls/vssm_small_0229_ckpt_epoch_222.pth"),
        ("", "B", 128, 15, 2, second, 88_557_800, "%23v2cls/vssm_base_0229_ckpt_epoch_237.pth"),
        ("-s1l8", "T", 96, 8, 1, second, 30_249_064, "%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth"),
        ("-s1l20", "S", 96, 20, 1, second, 49_012_840, "%23v2cls/vssm1_small_0229s_ckpt_epoch_240.pth"),
        ("-s1l20", "B", 128, 20, 1, second, 86_614_504, "%23v2cls/vssm1_base_0229s_ckpt_epoch_225.pth"),
        ("-v0", "T", 96, 9, 2, first, 22_893_448, "%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth"),
        ("-v0", "S", 96, 27, 2, first, 44_417_416, "%23v0cls/vssmsmall_dp03_ckpt_epoch_238.pth"),
        ("-v0", "B", 128, 27, 2, first, 76_254_056, "%23v0cls/vssmbase_dp06_ckpt_epoch_241.pth"),
    )
    for suffix, size, d_model, blocks, ssm_ratio, version, parameters, release in variants:
        yield hierarchical(
            f"VMamba{suffix}",
            size,
            doubling(d_model),
            name=f"vmamba-{size.lower()}{suffix}",
            module="vmamba",
            parameters=parameters,
            config={"depths": (2, 2, blocks, 2), "ssm_ratio": ssm_ratio, **version},
            pretrained=f"https://github.com/MzeroMiko/VMamba/releases/download/{release}",
            rounding="up" if version["overlap"] else "down",
        )


def _mambavision() -> Iterator[BackboneFacts]:
    """Hatamizadeh & Kautz, arXiv 2407.08083; sizes as in the authors' repository NVlabs/MambaVision."""
    sizes = {
        # first d_model, stem, blocks and heads per level, layer scale, parameters with head, word
        "T": (80, 32, (1, 3, 8, 4), (2, 4, 8, 16), False, 31_794_248, "tiny"),
        "T2": (80, 32, (1, 3, 11, 4), (2, 4, 8, 16), False, 35_104_008, "tiny2"),
        "S": (96, 64, (3, 3, 7, 5), (2, 4, 8, 16), False, 50_140_584, "small"),
        "B": (128, 64, (3, 3, 10, 5), (2, 4, 8, 16), True, 97_685_288, "base"),
        "L": (196, 64, (3, 3, 10, 5), (4, 8, 16, 32), True, 227_961_048, "large"),
        "L2": (196, 64, (3, 3, 12, 5), (4, 8, 16, 32), True, 241_554_824, "large2"),
    }
    for size, (d_model, stem_dim, depths, heads, layer_scale, parameters, word) in sizes.items():
        file = f"MambaVision-{size}-1K/resolve/main/mambavision_{word}_1k.pth.tar"
        yield hierarchical(
            "MambaVision",
            size,
            doubling(d_model),
            module="mambavision",
            parameters=parameters,
            config={
                "stem_dim": stem_dim,
                "depths": depths,
                "heads": heads,
                "windows": (8, 8, 14, 7),
                "layer_scale": layer_scale,
            },
            pretrained=f"https://huggingface.co/nvidia/{file}",
        )


def _maxvit() -> Iterator[BackboneFacts]:
    """Tu et al., arXiv 2204.01697, as timm's `maxvit_*_tf_224`; parameters at 224 pixels.

    Windows and grids are 1/32 of the image along each side, so their relative positions grow with it.
    """
    sizes = {
        # timm's word, channels of each level, parameters with a 1000-class head
        "T": ("tiny", (64, 128, 256, 512), 30_916_528),
        "S": ("small", (96, 192, 384, 768), 68_927_956),
        "B": ("base", (96, 192, 384, 768), 119_467_708),
        "L": ("large", (128, 256, 512, 1024), 211_785_560),
    }
    for size, (word, dims, parameters) in sizes.items():
        yield hierarchical(
            "MaxViT",
            size,
            dims,
            module="timm_models",
            parameters=parameters,
            config={"timm_name": f"maxvit_{word}_tf_224"},
            pretrained=f"maxvit_{word}_tf_224.in1k",
            min_size=64,
            multiple=32,
            extra="timm",
        )


def _vit_adapter() -> Iterator[BackboneFacts]:
    """Chen et al., arXiv 2205.08534: DeiT-B as for ADE20K in the authors' repository czczup/ViT-Adapter."""
    yield hierarchical(
        "ViT-Adapter",
        "B",
        (768,) * 4,
        name="vit-adapter-deit-b",
        module="vit_adapter",
        parameters=99_495_392,
        config={
            "depth": 12,
            "heads": 12,
            "patch": 16,
            "pretrained_size": 224,
            "stem_dim": 64,
            "deform_heads": 12,
            "deform_ratio": 0.5,
        },
        multiple=32,
    )


FAMILIES = (_vit, _vitdet, _vmamba, _mambavision, _maxvit, _vit_adapter)
