"""The table of backbones: every published variant with its own sizes and parameter count. No torch.

Adding a family is one function here and one module with `build(facts, options)` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlmprof.backbones.catalog import DEFAULT_LEVEL, BackboneFacts


def _vit() -> Iterator[BackboneFacts]:
    """Dosovitskiy et al., arXiv 2010.11929, and DeiT's T and S; parameters as timm's `vit_*_patch*_224`."""
    sizes = {
        # d_model, depth, heads, patch, parameters with a 1000-class head
        "T": (192, 12, 3, 16, 5_717_416),
        "S": (384, 12, 6, 16, 22_050_664),
        "B": (768, 12, 12, 16, 86_567_656),
        "L": (1024, 24, 16, 16, 304_326_632),
    }
    for size, (d_model, depth, heads, patch, parameters) in sizes.items():
        yield BackboneFacts(
            name=f"vit-{size.lower()}",
            family="ViT",
            size=size,
            embed_dim=d_model,
            stride=patch,
            min_size=patch,
            multiple=patch,
            parameters=parameters,
            module="vlmprof.backbones.vit",
            config={"depth": depth, "heads": heads, "mlp_ratio": 4, "pretrained_size": 224},
        )


def _vmamba() -> Iterator[BackboneFacts]:
    """Liu et al., arXiv 2401.10166; sizes and counts as in the authors' repository MzeroMiko/VMamba."""
    sizes = {
        # first level's d_model, depth of each level, parameters with a 1000-class head
        "T": (96, (2, 2, 5, 2), 30_705_832),
        "S": (96, (2, 2, 15, 2), 50_147_752),
        "B": (128, (2, 2, 15, 2), 88_557_800),
    }
    for size, (d_model, depths, parameters) in sizes.items():
        dims = tuple(d_model << level for level in range(4))
        yield BackboneFacts(
            name=f"vmamba-{size.lower()}",
            family="VMamba",
            size=size,
            embed_dim=dims[DEFAULT_LEVEL - 1],
            stride=4 << (DEFAULT_LEVEL - 1),
            min_size=32,
            multiple=1,
            parameters=parameters,
            module="vlmprof.backbones.vmamba",
            config={"depths": depths, "d_state": 1, "ssm_ratio": 2, "mlp_ratio": 4},
            level_dims=dims,
            level=DEFAULT_LEVEL,
        )


ENTRIES: dict[str, BackboneFacts] = {
    facts.name: facts for family in (_vit, _vmamba) for facts in family()
}
