"""ViTDet (Li et al., arXiv 2203.16527): a plain ViT with windowed and global attention.

The model is transformers' `VitDetModel`, which gives the published one's outputs (tests/golden). It adds
decomposed relative positions to an attention matrix that is written out whole, in the published manner,
so its memory grows with the square of the tokens. Relative positions are those of the published
1024-pixel model, interpolated inside every call for other sizes, as published. Their indices are made on the
host, as published too: on a GPU each block waits for what came before, and no CUDA graph can hold one.
"""

from __future__ import annotations

from torch import Tensor
from transformers import VitDetConfig, VitDetModel

from vlmprof.backbones.checkpoints import strip_prefix
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone


class ViTDet(Backbone):
    """Every block attends in windows of 14×14 tokens but the last of each quarter of the depth."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__()
        depth = facts.config["depth"]
        last_of_quarters = {quarter * depth // 4 - 1 for quarter in (1, 2, 3, 4)}
        self.model = VitDetModel(
            VitDetConfig(
                hidden_size=facts.embed_dim,
                num_hidden_layers=depth,
                num_attention_heads=facts.config["heads"],
                image_size=facts.config["trained_size"],
                patch_size=facts.stride,
                window_size=facts.config["window"],
                window_block_indices=[i for i in range(depth) if i not in last_of_quarters],
                use_relative_position_embeddings=True,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        maps: Tensor = self.model(images).last_hidden_state
        return maps.flatten(2).transpose(1, 2)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """detectron2's names, of the backbone alone or of a whole detector."""
        state = strip_prefix(state, ("backbone.", "net."))
        ours = {official: name for name, official in official_names(list(self.state_dict())).items()}
        return {ours.get(name, name): tensor for name, tensor in state.items()}


build = ViTDet


def official_names(names: list[str]) -> dict[str, str]:
    """detectron2's name of each parameter, under ours."""
    renamed = {}
    for name in names:
        official = name.removeprefix("model.").replace("encoder.layer.", "blocks.")
        official = official.replace(".attention.", ".attn.")
        official = official.replace("embeddings.position_embeddings", "pos_embed")
        renamed[name] = official.replace("embeddings.projection", "patch_embed.proj")
    return renamed
