"""What the frames of a video add to the stages `vision` and `connector`.

Videos lie on the device as (videos · frames, 3, height, width). The encoder is given a batch of frames at a
time, the connector those of all videos.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def in_batches(encode: Callable[[Tensor], Tensor], images: Tensor, at_once: int) -> Tensor:
    """Encode `at_once` images after another: (images, 3, height, width) to (images, encoder tokens, d_model).

    Besides the tokens of all images, only the activations of one batch are in memory.
    """
    if images.shape[0] <= at_once:
        return encode(images)
    tokens: Tensor | None = None
    for start in range(0, images.shape[0], at_once):
        batch = encode(images[start : start + at_once])
        if tokens is None:
            tokens = batch.new_empty(images.shape[0], *batch.shape[1:])
        tokens[start : start + at_once] = batch
        del batch  # before the next one is made
    assert tokens is not None
    return tokens


class VideoConnector(nn.Module):
    """A connector of frames, whose tokens follow each other in those of their video."""

    def __init__(self, connector: nn.Module, frames: int) -> None:
        super().__init__()
        self.connector = connector
        self.frames = frames

    def forward(self, tokens: Tensor) -> Tensor:
        """(videos · frames, encoder tokens, channels) to (videos, visual tokens, hidden_size)."""
        frames: Tensor = self.connector(tokens)
        return frames.unflatten(0, (-1, self.frames)).flatten(1, 2)
