"""SigLIP 2 in its NaFlex form (Tschannen et al., arXiv 2502.14786), through transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.transformers_plain import FromTransformers, from_config, keep_last


class SigLIP2(FromTransformers):
    """transformers' `Siglip2VisionModel`, given every patch of the image and no padding."""

    def __init__(self, facts: BackboneFacts, options: BuildOptions) -> None:
        super().__init__(from_config({**facts.config, "vision_use_head": options.classifier}))
        self.patch = facts.stride
        self.rows_columns = (0, 0)
        embeddings = self._embeddings()
        # transformers resizes the positions anew in every call, from a shape that it reads on the host (to
        # 5.23) or from weights that it makes there (5.24)
        embeddings.resize_positional_embeddings = keep_last(
            embeddings.resize_positional_embeddings, lambda *_, **__: self.rows_columns
        )

    def prepare(self, height: int, width: int) -> None:
        """Resize the positions for a resolution in pixels now, instead of in the first call."""
        self.rows_columns = rows, columns = height // self.patch, width // self.patch
        some_weight = next(self.model.parameters())
        patches = some_weight.new_zeros(1, rows * columns, 3 * self.patch**2)
        with torch.no_grad():
            self._embeddings()(patches, torch.tensor([[rows, columns]]))

    def _embeddings(self) -> Any:
        return next(m for m in self.model.modules() if hasattr(m, "resize_positional_embeddings"))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, rows·columns, d_model)."""
        batch, _, height, width = images.shape
        rows, columns = height // self.patch, width // self.patch
        patches = images.unflatten(2, (rows, self.patch)).unflatten(4, (columns, self.patch))
        # the published patches hold their pixels row by row, with the three channels innermost
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
        self.rows_columns = (rows, columns)
        # one shape, and so one set of positions, for the whole batch
        shapes = torch.tensor([[rows, columns]])
        tokens: Tensor = self.model(
            pixel_values=patches, pixel_attention_mask=None, spatial_shapes=shapes
        ).last_hidden_state
        return tokens


build = SigLIP2
