"""Videos: tokens, order, batches of frames, and what is counted against what runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import build_spec
from vlmprof.vlm.frames import VideoConnector, in_batches
from vlmprof.vlm.model import create_vlm
from vlmprof.vlm.tiling import Tiling
from vlmprof.vlm.workload import Workload

VIDEO = Workload(
    "vit-t", "llama-23m", 64, 96, connector="pool2", dtype="float32", batch_size=2, frames=5, frame_batch=3
)


def planned(**axes: object) -> list[Cell]:
    spec = {"axes": {"backbone": "vit-t", "resolution": 64, "llm": "llama-23m", **axes}}
    return make_plan(build_spec(spec, {}, "videos"))


def test_tokens_of_frames_add_up() -> None:
    cells = planned(frames=[32, 1, 8], connector=["mlp2", "pool2", "resampler-64"])
    assert {
        (cell.axes.connector, cell.axes.frames): (cell.encoder_tokens, cell.visual_tokens) for cell in cells
    } == {
        (connector, frames): (16 * frames, tokens * frames)
        for connector, tokens in (("mlp2", 16), ("pool2", 4), ("resampler-64", 64))
        for frames in (1, 8, 32)
    }
    assert [cell.axes.frames for cell in cells[:3]] == [1, 8, 32]


def test_frames_are_cut_into_tiles_as_photos_are() -> None:
    photo, video = planned(
        resolution="128x64", frames=[1, 4], tiling="dynamic", tile_size=64, connector="pixel-shuffle2"
    )
    assert (photo.tiles, photo.encoder_tokens, photo.visual_tokens) == (3, 3 * 16, 3 * 4)
    assert (video.tiles, video.encoder_tokens, video.visual_tokens) == (3, 4 * 3 * 16, 4 * 3 * 4)


def test_one_frame_and_one_pass_have_the_ids_of_versions_without_them() -> None:
    plain, *others = planned(frames=[1, 2], prefill_chunk=["none", 8])
    (before,) = planned()
    assert plain.cell_id == before.cell_id
    assert len({plain.cell_id, *(cell.cell_id for cell in others)}) == 4


class Doubled(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return 2 * tokens


def test_tokens_of_frames_follow_each_other() -> None:
    frames = torch.randn(2 * 5, 4, 8)
    assert torch.equal(VideoConnector(Doubled(), 5)(frames), 2 * frames.reshape(2, 20, 8))


@pytest.mark.parametrize(
    ("at_once", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (9, [5])]
)
def test_batches_of_frames_are_encoded_as_all_frames_are(at_once: int, sizes: list[int]) -> None:
    encoder, seen = nn.Conv2d(3, 4, 8, 8), []

    def encode(images: Tensor) -> Tensor:
        seen.append(len(images))
        return encoder(images).flatten(2).transpose(1, 2)

    images = torch.randn(5, 3, 16, 24)
    with torch.inference_mode():
        tokens = in_batches(encode, images, at_once)
        assert seen == sizes
        torch.testing.assert_close(tokens, encode(images))


@pytest.mark.parametrize(
    "workload",
    [
        VIDEO,
        replace(VIDEO, frame_batch=None),
        replace(VIDEO, tiling=Tiling("anyres", 64, 4), height_px=50, batch_size=1),
    ],
    ids=["pool2", "all at once", "tiles"],
)
@pytest.mark.slow
def test_what_is_counted_of_a_video_is_what_runs(workload: Workload) -> None:
    vlm = create_vlm(workload)
    height, width = workload.encoder_size
    given = torch.randn(workload.encoder_batch, 3, height, width)
    cost, real = count(workload), {}
    encode = partial(in_batches, vlm.encode_image, at_once=workload.encoded_at_once)
    for stage, call in (("vision", encode), ("connector", vlm.project), ("prefill", vlm.prefill)):
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
            given = call(given)
        real[stage] = counter.get_total_flops()
        assert cost.stages[stage].output_bytes == given.nbytes
    assert {stage: one.matrix_flops for stage, one in cost.stages.items()} == real
    assert given.shape[1] == cost.visual_tokens


def test_activations_are_those_of_one_batch_and_tokens_those_of_all_frames() -> None:
    """By hand: inputs of all frames, tokens of all frames, and what one batch needs besides its input."""
    few, many = (
        count(replace(VIDEO, batch_size=1, frames=frames, frame_batch=2)).stages["vision"]
        for frames in (2, 64)
    )
    image, tokens = 3 * 64 * 96 * 4, 24 * 192 * 4
    assert (few.output_bytes, many.output_bytes) == (2 * tokens, 64 * tokens)
    assert many.peak_activation_bytes == 64 * (image + tokens) + few.peak_activation_bytes - 2 * image
    at_once = count(replace(VIDEO, batch_size=1, frames=64, frame_batch=None)).stages["vision"]
    assert at_once.matrix_flops == many.matrix_flops
    assert at_once.peak_activation_bytes > 2 * many.peak_activation_bytes


@pytest.mark.parametrize(
    ("axes", "fixed", "words"),
    [
        ({"frames": 0}, {}, "frames: 0 is not an integer of at least 1"),
        ({}, {"frame_batch": 4}, "frame_batch: there are no videos; add frames"),
        ({"frames": [1, 8]}, {"frame_batch": 0}, "frame_batch: 0 is not an integer of at least 1"),
        ({"prefill_chunk": "some"}, {}, "prefill_chunk: 'some' is not an integer of at least 1, nor none"),
        ({"prefill_chunk": 8}, {"stages": ["vision"]}, "prefill_chunk: there is no prefill; add it"),
        ({"prefill_chunk": 8, "llm": "mamba-2.8b"}, {}, "mamba cannot prefill in chunks.*prefill_chunk none"),
        ({"frames": 8, "resolution": 65}, {}, "vit-t does not accept 65; the nearest accepted size is 64 or"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    axes: dict[str, object], fixed: dict[str, object], words: str
) -> None:
    document = {"axes": {"backbone": "vit-t", "resolution": 64, "llm": "llama-23m", **axes}, "fixed": fixed}
    with pytest.raises(UserError, match=words) as refused:
        make_plan(build_spec(document, {}, "videos"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["frames", "prefill_chunk"])
def test_whole_vlms_take_neither(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: a vlm is timed in one forward pass on photos; leave out"):
        build_spec({"axes": {"vlm": "hf:some", "resolution": 64, name: 4}}, {}, "videos")
