"""Plans: cells, ids, token counts and skipped cells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.checks import known
from vlmprof.errors import UserError
from vlmprof.execution.order import in_order
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import build_spec, load_spec


def planned(**axes: object) -> list[Cell]:
    return make_plan(build_spec({"axes": {"llm": "llama-23m", **axes}}, {}, "test"))


def test_cells_run_line_by_line_from_small_to_large() -> None:
    cells = planned(backbone=["vit-t", "vmamba-t"], resolution=[512, 224, "640x320"])
    assert [cell.label for cell in cells] == [
        f"{backbone} @ {resolution}"
        for backbone in ("vit-t", "vmamba-t")
        for resolution in ("224", "640x320", "512")
    ]


def test_labels_name_what_tells_a_cell_apart_and_no_more() -> None:
    cells = planned(backbone="vit-t", resolution=[32], mode=["eager", "compile"], batch_size=[1, 2])
    assert [cell.label for cell in cells] == [
        f"vit-t @ 32, batch size {batch_size}, mode {mode}"
        for batch_size in (1, 2)
        for mode in ("eager", "compile")
    ]


def test_tokens_are_one_per_sixteen_pixels_rounded_up() -> None:
    cells = planned(backbone="vmamba-t", resolution=[224, 512, "1333x800", "33x47"])
    tokens = {cell.axes.resolution: cell.visual_tokens for cell in cells}
    assert tokens == {"224": 196, "512": 1024, "1333x800": 4200, "33x47": 9}


def test_ids_are_stable_and_depend_on_every_axis() -> None:
    first = planned(backbone="vit-t", resolution=[224])[0]
    again = planned(backbone=["vit-s", "vit-t"], resolution=[512, 224])
    assert first.cell_id in {cell.cell_id for cell in again}
    for axis, value in (("dtype", "float32"), ("batch_size", 2), ("connector", "linear"), ("levels", "all")):
        assert planned(backbone="vit-t", resolution=[224], **{axis: value})[0].cell_id != first.cell_id


def test_a_size_that_only_some_backbones_take_is_skipped_for_the_others() -> None:
    cells = {cell.axes.backbone: cell for cell in planned(backbone=["vit-t", "vmamba-t"], resolution=[230])}
    assert cells["vmamba-t"].skip_reason is None
    assert cells["vit-t"].visual_tokens is None
    assert "nearest accepted size is 224 or 240" in known(cells["vit-t"].skip_reason)


def test_a_size_that_no_backbone_takes_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match="vit-t does not accept 100x230; the nearest accepted size is 96x224 or 112x240"
    ):
        planned(backbone="vit-t", resolution=[224, "100x230"])


@pytest.mark.parametrize(
    ("backbone", "connector", "resolution", "fit", "tokens", "size"),
    [
        ("vit-b", "pool2", "224", "resize", (196, 49), (224, 224)),
        ("vit-b", "pixel-shuffle4", "256x512", "resize", (512, 32), (512, 256)),
        ("vit-b", "pool4", "224", "pad", (256, 16), (256, 256)),
        ("clip-l", "ldpv2", "336", "resize", (576, 144), (336, 336)),
        ("vit-h", "pixel-shuffle2", "225", "pad", (324, 81), (252, 252)),
        ("vmamba-t", "pool2", "250", "pad", (256, 64), (250, 250)),
        ("vmamba-t", "pool2", "33x47", "pad", (16, 4), (64, 64)),
        ("convnextv2-t", "pool2", "230", "resize", (196, 49), (230, 230)),
        ("vmamba-t", "resampler-64", "33x47", "resize", (9, 64), (47, 33)),
        ("vit-t", "c-abstractor", "512", "resize", (1024, 144), (512, 512)),
    ],
)
def test_a_connector_changes_the_tokens_and_the_sizes(
    backbone: str, connector: str, resolution: str, fit: str, tokens: tuple[int, int], size: tuple[int, int]
) -> None:
    axes = {"backbone": backbone, "connector": connector, "resolution": resolution, "llm": "llama-23m"}
    (cell,) = make_plan(build_spec({"axes": axes, "fixed": {"fit": fit}}, {}, "test"))
    assert (cell.encoder_tokens, cell.visual_tokens) == tokens
    assert (cell.height_px, cell.width_px) == size


@pytest.mark.parametrize(
    ("backbone", "connector", "resolution", "words"),
    [
        ("vit-b", "pool4", "224", "vit-b with pool4 does not accept 224: its 14 x 14 tokens cannot be merged "
         "4 x 4; the nearest accepted size is 192 or 256; or use fit pad"),
        ("vmamba-t", "pool4", "1333x800", "its 84 x 50 tokens"),
        ("vmamba-t", "pixel-shuffle2", "33x47", "its 3 x 3 tokens cannot be merged 2 x 2; "
         "the nearest accepted size is 32 or 64"),
        ("vit-h", "pixel-shuffle2", "224x98", "its 16 x 7 tokens cannot be merged 2 x 2; "
         "the nearest accepted size is 224x84 or 224x112"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_merged_is_refused_with_the_nearest(
    backbone: str, connector: str, resolution: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        planned(backbone=backbone, connector=connector, resolution=resolution)
    (other, skipped) = planned(backbone=backbone, connector=["mlp2", connector], resolution=resolution)
    assert other.skip_reason is None
    assert words in known(skipped.skip_reason)


def test_tiles_are_the_encoders_batch_and_the_resolution_is_the_photos() -> None:
    """LLaVA-NeXT's and InternVL's token counts for photos of 1000 × 500 and 200 × 200."""
    cells = planned(
        backbone="clip-l", resolution=["1000x500", 200], connector=["mlp2", "pixel-shuffle2"],
        tiling=["none", "anyres", "dynamic"],
    )  # fmt: skip
    found = {
        (cell.axes.connector, cell.axes.named["tiling"], cell.axes.resolution): (
            cell.tiles,
            cell.encoder_tokens,
            cell.visual_tokens,
        )
        for cell in cells
        if cell.skip_reason is None
    }
    assert found == {
        ("mlp2", "anyres-336-4", "1000x500"): (3, 3 * 576, 576 + 24 * 49),
        ("mlp2", "anyres-336-4", "200"): (3, 3 * 576, 576 + 24 * 25),
        ("pixel-shuffle2", "anyres-336-4", "1000x500"): (3, 3 * 576, 144 + 12 * 25),
        ("pixel-shuffle2", "anyres-336-4", "200"): (3, 3 * 576, 144 + 12 * 13),
        ("mlp2", "dynamic-448-12", "1000x500"): (3, 3 * 1024, 3 * 1024),
        ("mlp2", "dynamic-448-12", "200"): (1, 1024, 1024),
        ("pixel-shuffle2", "dynamic-448-12", "1000x500"): (3, 3 * 1024, 3 * 256),
        ("pixel-shuffle2", "dynamic-448-12", "200"): (1, 1024, 256),
    }
    assert {(cell.height_px, cell.width_px) for cell in cells} == {(500, 1000), (200, 200)}


def test_without_tiling_tile_sizes_make_no_further_cells_and_no_other_ids() -> None:
    axes = {"backbone": "vit-t", "resolution": 224}
    (plain,) = planned(**axes)
    cells = planned(**axes, tiling=["none", "anyres"], tile_size=[224, 448], max_tiles=[4, 6])
    assert [cell.axes.named["tiling"] for cell in cells] == [
        "none", "anyres-224-4", "anyres-224-6", "anyres-448-4", "anyres-448-6",
    ]  # fmt: skip
    assert len({cell.cell_id for cell in cells}) == 5
    # the id that this cell had before there was tiling
    assert plain.cell_id == cells[0].cell_id == "vit-t-224-3ad13fbf"


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (
            {"tile_size": 100},
            "vit-t does not accept tiles of 100; the nearest accepted tile_size is 96 or 112",
        ),
        ({"connector": "pool4"}, "its 21 x 21 tokens cannot be merged 4 x 4; the nearest accepted tile_size"),
        ({"connector": "resampler-64"}, "have no order; use dynamic"),
        ({"max_tiles": 2}, "at least 3, not 2"),
    ],
)
def test_tiles_that_cannot_be_encoded_or_joined_are_refused(axes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        planned(backbone="vit-t", resolution=[500, 1000], tiling="anyres", **axes)
    cells = planned(backbone="vit-t", resolution=512, tiling=["none", "anyres"], **axes)
    assert cells[0].skip_reason is None
    assert words in known(cells[1].skip_reason)


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        ("backbone", "vmanba-t", "unknown backbone 'vmanba-t'; did you mean vmamba-t"),
        ("llm", "vicuna7b", "vicuna-7b"),
        ("connector", "mlp4", "mlp"),
    ],
)
def test_unknown_names_bring_the_nearest(axis: str, value: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        planned(**{"backbone": "vit-t", "resolution": 224, axis: value})


GEOMETRIES = {
    # backbone: visual tokens at 224, 512, 1024 and 1333x800, and what the last is padded to
    "vit-b": (196, 1024, 4096, 4200, (800, 1344)),
    "vit-h": (256, 1369, 5476, 5568, (812, 1344)),
    "vmamba-t": (196, 1024, 4096, 4200, (800, 1333)),
    "vmamba-t-v0": (196, 1024, 4096, 4150, (800, 1333)),
    "vitdet-b": (196, 1024, 4096, 4200, (800, 1344)),
    "mambavision-t": (196, 1024, 4096, 4200, (800, 1333)),
    "maxvit-t": (196, 1024, 4096, 4200, (800, 1344)),
    "vit-adapter-deit-b": (196, 1024, 4096, 4200, (800, 1344)),
    "clip-l": (256, 1369, 5476, 5568, (812, 1344)),
    "siglip-b": (196, 1024, 4096, 4200, (800, 1344)),
    "siglip2-b": (196, 1024, 4096, 4200, (800, 1344)),
    "dinov2-s": (256, 1369, 5476, 5568, (812, 1344)),
    "dinov3-s": (196, 1024, 4096, 4200, (800, 1344)),
    "swin-t": (196, 1024, 4096, 4200, (800, 1333)),
    "convnextv2-t": (196, 1024, 4096, 4150, (800, 1333)),
}


@pytest.mark.parametrize("backbone", GEOMETRIES)
def test_every_geometry_of_the_study_is_taken_with_padding(backbone: str) -> None:
    document = {
        "axes": {"backbone": backbone, "llm": "llama-23m", "resolution": [224, 512, 1024, "1333x800"]},
        "fixed": {"fit": "pad"},
    }
    cells = {cell.axes.resolution: cell for cell in make_plan(build_spec(document, {}, "test"))}
    *tokens, padded = GEOMETRIES[backbone]
    assert [cells[size].visual_tokens for size in ("224", "512", "1024", "1333x800")] == tokens
    assert (cells["1333x800"].height_px, cells["1333x800"].width_px) == padded
    assert not any(cell.skip_reason for cell in cells.values())


def whole(folder: Path, resolution: Sequence[object], **config: object) -> list[Cell]:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    axes = {"vlm": f"hf:{folder}", "resolution": resolution}
    return make_plan(build_spec({"axes": axes, "fixed": {"processor": "one-piece"}}, {}, "test"))


def test_a_whole_vlm_stands_on_the_axes_of_its_parts(tmp_path: Path) -> None:
    vision = {"patch_size": 14, "spatial_merge_size": 2}
    text = {"model_type": "llama", "_name_or_path": "lmsys/vicuna-7b-v1.5"}
    llava, qwen, other = (
        whole(tmp_path / kind, [224, "336x224"], model_type=kind, vision_config=vision, text_config=text)
        for kind in ("llava", "qwen2_5_vl", "unheard_of")
    )
    assert [cell.visual_tokens for cell in (*llava, *qwen, *other)] == [256, 384, 64, 96, None, None]
    assert llava[0].label == "llava @ 224"
    assert (llava[0].axes.llm, llava[0].axes.connector) == ("vicuna-7b-v1.5", "its own")
    assert llava[0].cell_id.startswith("llava-224-")


def test_a_whole_vlm_says_which_sizes_it_takes(tmp_path: Path) -> None:
    config = {"model_type": "smolvlm", "scale_factor": 4, "vision_config": {"patch_size": 16}}
    with pytest.raises(UserError, match="does not accept 512x384; the nearest accepted size is 384 or 512"):
        whole(tmp_path / "smol", [512, "512x384"], **config)


def test_what_is_no_whole_vlm_gets_one_line(tmp_path: Path) -> None:
    for config, words in (({"model_type": "llama"}, "no vision_config"), ({}, "no model_type")):
        with pytest.raises(UserError, match=words):
            whole(tmp_path, [224], **config)
    for name in ("hf:nothing", "hf:./nothing/here", f"hf:{tmp_path}/config.jsn"):
        with pytest.raises(UserError, match="there is no file"):
            make_plan(build_spec({"axes": {"vlm": name, "resolution": 224}}, {}, "test"))


def test_other_orders_have_the_same_cells() -> None:
    cells = planned(backbone=["vit-t", "vmamba-t"], resolution=[224, 512, 1024])
    interleaved = in_order(cells, "interleaved", 0)
    assert [cell.axes.resolution for cell in interleaved] == ["224", "224", "512", "512", "1024", "1024"]
    videos = planned(backbone=["vit-t", "vmamba-t"], resolution=[224], frames=[8, 1])
    assert [cell.axes.frames for cell in in_order(videos, "interleaved", 0)] == [1, 1, 8, 8]
    shuffled = in_order(cells, "random", 1)
    assert shuffled != cells
    assert shuffled == in_order(cells, "random", 1) != in_order(cells, "random", 2)
    assert sorted(c.cell_id for c in shuffled) == sorted(c.cell_id for c in cells)


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; from vlmprof.spec import load_spec; from vlmprof.plan import make_plan;"
        "cells = make_plan(load_spec('kuo2026-fig4')); assert len(cells) > 100;"
        "assert not {'torch', 'pandas', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_last_level_is_each_backbones_own() -> None:
    axes = {"backbone": ["vit-t", "vmamba-t"], "resolution": 448, "llm": "llama-23m", "level": [3, "last"]}
    cells = make_plan(build_spec({"axes": axes}, {}, "levels"))
    assert [(c.axes.backbone, c.axes.level, c.visual_tokens) for c in cells] == [
        ("vit-t", 3, 784), ("vmamba-t", 3, 784), ("vmamba-t", 4, 196),
    ]  # fmt: skip
    last = make_plan(build_spec({"axes": {**axes, "level": "last"}}, {}, "last"))
    assert "level" not in last[0].distinguished_by


@pytest.mark.parametrize("name", ["deployed", "deployed-h200", "fastvlm"])
def test_shipped_deployments_can_be_planned(name: str) -> None:
    if name == "fastvlm":
        pytest.importorskip("timm")
    spec = load_spec(name)
    cells = make_plan(spec)
    for axis, values in spec.axes.named.items():
        if axis in ("backbone", "resolution", "llm", "connector", "frames", "llm_precision"):
            ran = {str(cell.axes.named[axis]) for cell in cells if cell.skip_reason is None}
            assert ran == {str(value) for value in values}
