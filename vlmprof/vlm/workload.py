"""What one cell asks of a composed VLM: its parts, its images, its stages. Without torch.

The same object is given to `vlmprof.vlm.model.create_vlm`, to be measured, and to `vlmprof.cost.count.count`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmprof.backbones.facts import DEFAULT_LEVEL
from vlmprof.settings import (
    Attention,
    Axes,
    Dtype,
    KernelBackend,
    LevelsRun,
    LLMPrecision,
    Logits,
    Outputs,
    Settings,
    StageName,
)
from vlmprof.vlm.tiling import Tiling


@dataclass(frozen=True)
class Workload:
    """A VLM of a backbone, a connector and an LLM, and one iteration of it on images of one size.

    Fields that `Axes` and `Settings` have too mean the same here.
    """

    backbone: str
    llm: str
    height_px: int
    width_px: int
    connector: str = "mlp2"
    dtype: Dtype = "bfloat16"
    batch_size: int = 1
    level: int = DEFAULT_LEVEL
    levels: LevelsRun = "through-tap"
    kernel_backend: KernelBackend = "auto"
    attention: Attention = "auto"
    llm_precision: LLMPrecision = "as-dtype"
    stages: tuple[StageName, ...] = ("vision", "connector", "prefill")
    """Without `prefill` and `decode`, the LLM is not built."""
    prompt_tokens: int = 0
    new_tokens: int = 1
    logits: Logits = "all"
    outputs: Outputs = "freed"
    autocast: bool = False
    seed: int = 0
    weights: str | None = None
    study_checkpoint: str | None = None
    tiling: Tiling | None = None
    """With it, `height_px` × `width_px` is the size of photos that are cut into tiles."""
    frames: int = 1
    """Frames of each video, cut into tiles as photos are."""
    frame_batch: int | None = None
    prefill_chunk: int | None = None
    """Positions of each chunk of `prefill`; None for one pass."""

    @property
    def encoder_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that the backbone is given."""
        if self.tiling is None:
            return self.height_px, self.width_px
        return self.tiling.tile_px, self.tiling.tile_px

    @property
    def encoder_batch(self) -> int:
        """Pictures that the backbone is given in one iteration."""
        return self.batch_size * self.frames * self._tiles

    @property
    def encoded_at_once(self) -> int:
        """Most of these pictures that it is given at once."""
        frames = self.batch_size * self.frames
        return min(frames, self.frame_batch or frames) * self._tiles

    @property
    def _tiles(self) -> int:
        return 1 if self.tiling is None else self.tiling.tiles(self.height_px, self.width_px)

    @classmethod
    def of(cls, axes: Axes, settings: Settings, height_px: int, width_px: int) -> Workload:
        """The workload of a cell whose images are `height_px` × `width_px`."""
        return cls(
            backbone=axes.backbone,
            llm=axes.llm,
            height_px=height_px,
            width_px=width_px,
            connector=axes.connector,
            dtype=axes.dtype,
            batch_size=axes.batch_size,
            level=axes.level,
            levels=axes.levels,
            kernel_backend=axes.kernel_backend,
            attention=axes.attention,
            llm_precision=axes.llm_precision,
            stages=settings.stages,
            prompt_tokens=settings.prompt_tokens,
            new_tokens=settings.new_tokens,
            logits=settings.logits,
            outputs=settings.outputs,
            autocast=settings.autocast,
            seed=settings.seed,
            weights=settings.weights,
            study_checkpoint=settings.study_checkpoint,
            tiling=Tiling.of(axes),
            frames=axes.frames,
            frame_batch=settings.frame_batch,
            prefill_chunk=None if axes.prefill_chunk == "none" else axes.prefill_chunk,
        )
