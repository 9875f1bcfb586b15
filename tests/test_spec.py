"""Specifications: what is accepted, what is rejected, and the error messages."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from vlmprof.errors import UserError
from vlmprof.fields import AXES, parse_resolution, resolution_size
from vlmprof.spec import build_spec, load_spec, shipped_specs

GRID = {"axes": {"backbone": "vit-t", "resolution": [224], "llm": "llama-23m"}}


def test_defaults_fill_what_is_not_said() -> None:
    spec = build_spec(GRID, {}, "mine")
    assert spec.name == "mine"
    assert spec.axes.resolution == ("224",)
    assert spec.axes.batch_size == (1,)
    assert list(spec.axes.named) == [name for name in AXES if name != "vlm"]
    assert spec.settings.logits == "all"


def test_overrides_replace_what_the_file_says() -> None:
    spec = build_spec(GRID, {"backbone": ["vit-s", "vmamba-t"], "iterations": "20"}, "mine")
    assert spec.axes.backbone == ("vit-s", "vmamba-t")
    assert spec.settings.iterations == 20


def test_a_count_on_the_command_line_is_kept_to_whatever_rule_the_file_names() -> None:
    file = {**GRID, "fixed": {"sampling": "adaptive", "warm_up": 2}}
    assert build_spec(file, {}, "mine").settings.sampling == "adaptive"
    counted = build_spec(file, {"iterations": "20"}, "mine").settings
    assert (counted.sampling, counted.warm_up, counted.iterations) == ("fixed", 2, 20)
    capped = build_spec(file, {"iterations": "20", "sampling": "adaptive"}, "mine").settings
    assert (capped.sampling, capped.iterations) == ("adaptive", 20)


@pytest.mark.parametrize(
    ("written", "kept", "size"),
    [
        (512, "512", (512, 512)),
        ("512", "512", (512, 512)),
        ("512x512", "512", (512, 512)),
        ("1333x800", "1333x800", (800, 1333)),
        (" 1333 × 800 ", "1333x800", (800, 1333)),
    ],
)
def test_a_resolution_is_width_by_height(written: int | str, kept: str, size: tuple[int, int]) -> None:
    assert parse_resolution(written) == kept
    assert resolution_size(kept) == size


@pytest.mark.parametrize("written", [0, "0", "0x5", "5x0", "-4", "big", "1x2x3", True, 2.5, ""])
def test_what_is_no_resolution_is_refused(written: bool | float | str) -> None:
    with pytest.raises(UserError, match="not a resolution"):
        parse_resolution(written)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"axes": {**GRID["axes"], "resolutions": [1]}}, r"'resolutions'; did you mean resolution"),
        ({**GRID, "fixd": {}}, r"'fixd'; did you mean fixed"),
        ({**GRID, "fixed": {"iterations": 0}}, "iterations: 0 is not an integer of at least 1"),
        ({**GRID, "fixed": {"iterations": 2.5}}, "iterations: 2.5 is not an integer of at least"),
        ({**GRID, "fixed": {"warm_up": True}}, "warm_up: True is not an integer of at least"),
        ({**GRID, "fixed": {"logits": "some"}}, "'some' is not one of all, last"),
        ({"axes": {**GRID["axes"], "tiling": "any"}}, "'any' is not one of none, anyres, dynamic"),
        ({"axes": {**GRID["axes"], "llm_precision": "int8"}}, "'int8' is not one of as-dtype, int8-weight, "),
        ({"axes": {**GRID["axes"], "tile_size": 0}}, "tile_size: 0 is not an integer of at least 1"),
        (
            {"axes": {**GRID["axes"], "max_tiles": "few"}},
            "max_tiles: 'few' is not an .* at least 1, nor auto",
        ),
        ({"axes": {**GRID["axes"], "tile_size": [224, 448]}}, "tile_size: there are no tiles; add tiling"),
        (
            {"axes": {**GRID["axes"], "tiling": ["none", "anyres"]}, "fixed": {"fit": "pad"}},
            "fit: tiling decides how photos are fitted",
        ),
        ({**GRID, "fixed": {"memory_limit": "lots"}}, "memory_limit: 'lots' is not a memory size"),
        ({**GRID, "fixed": {"stages": []}}, "stages: must be consecutive"),
        ({**GRID, "fixed": {"stages": ["preprocess", "connector"]}}, "stages: must be consecutive"),
        ({**GRID, "fixed": {"stages": ["preprocess", "vision", "decode"]}}, "stages: must be consecutive"),
        ({"axes": {"backbone": [], "resolution": 224, "llm": "llama-23m"}}, "no backbone given"),
        ({}, "no backbone given.*--backbone"),
        ({"axes": [1]}, "axes must be a table"),
        (
            {"axes": {**GRID["axes"], "dtype": "float32"}, "fixed": {"autocast": True}},
            "remove float32 from dtype",
        ),
    ],
)
def test_mistakes_are_named(document: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_spec(document, {}, "mine")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[axes\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_spec(str(path))


def test_a_file_without_a_name_names_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[axes]\nbackbone = "vit-t"\nresolution = 224\nllm = "llama-23m"')
    for overrides in ({}, {"tiling": ["anyres"]}):
        assert load_spec(str(tmp_path / "mine.toml"), overrides).name == "mine"


def test_shipped_specs_are_found_by_name_and_are_valid() -> None:
    assert {"quick", "kuo2026-fig4"} <= set(shipped_specs())
    for name in shipped_specs():
        assert load_spec(name).axes == load_spec(f"{name}.toml").axes


def test_the_paper_spec_has_the_papers_resolutions_and_protocol() -> None:
    from vlmprof.analysis.reference import load_reference

    spec = load_spec("kuo2026-fig4")
    published = {str(r) for r in load_reference("kuo2026")["resolution"]}
    assert published <= set(spec.axes.resolution)
    assert (spec.settings.warm_up, spec.settings.iterations) == (100, 100)
    assert spec.axes.llm == ("vicuna-7b",)
    assert spec.axes.dtype == ("bfloat16",)


def test_the_digest_follows_values_and_not_names() -> None:
    one = build_spec({**GRID, "name": "a"}, {}, "x")
    other = build_spec({**GRID, "name": "b"}, {}, "y")
    assert one.digest() == other.digest()
    assert one.digest() != build_spec(GRID, {"seed": 1}, "x").digest()


def test_every_shipped_file_is_packaged() -> None:
    names = {entry.name for entry in resources.files("vlmprof.sweeps").iterdir()}
    assert "quick.toml" in names
    tomllib.loads(resources.files("vlmprof.sweeps").joinpath("quick.toml").read_text())


WHOLE = {"axes": {"vlm": "hf:some/model", "resolution": [224]}}


def test_a_whole_vlm_takes_the_place_of_the_parts() -> None:
    assert "backbone" not in build_spec(WHOLE, {}, "mine").axes.named
    over = build_spec(GRID, {"vlm": ["hf:some/model"]}, "mine")
    assert over.axes.vlm == ("hf:some/model",)
    assert not {"backbone", "llm", "connector", "level"} & over.axes.named.keys()
    parts = build_spec(WHOLE, {"backbone": ["vit-t"], "llm": ["llama-23m"]}, "mine")
    assert "vlm" not in parts.axes.named


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"vlm": ["hf:a"], "backbone": ["vit-t"]}, "leave out backbone"),
        ({"llm": ["llama-23m"]}, "leave out llm"),
        ({"vlm": ["llava"]}, "write hf:NAME"),
        ({"mode": ["compile"]}, "mode eager"),
        ({"stages": ["vision"]}, "in one call"),
        ({"share_llm": True}, "share_llm"),
        ({"weights": "some.pth"}, "a vlm supports only pretrained"),
    ],
)
def test_what_a_whole_vlm_cannot_do_is_said_in_one_line(overrides: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as problem:
        build_spec(WHOLE, overrides, "mine")
    assert "\n" not in str(problem.value)


def test_options_without_tiles_or_videos_leave_out_their_sizes(tmp_path: Path) -> None:
    file = tmp_path / "tiled.toml"
    file.write_text(
        '[axes]\nbackbone = "vit-t"\nresolution = 224\nllm = "llama-23m"\ntiling = ["none", "anyres"]\n'
        "tile_size = 224\nmax_tiles = 4\nframes = [1, 8]\n[fixed]\nframe_batch = 4\n"
    )
    plain = load_spec(str(file), {"tiling": ["none"], "frames": ["1"]})
    assert plain.axes.tile_size == ("auto",)
    assert plain.axes.max_tiles == ("auto",)
    assert plain.settings.frame_batch is None
    assert load_spec(str(file), {"tiling": ["anyres"]}).axes.tile_size == (224,)
    with pytest.raises(UserError, match="tile_size: there are no tiles"):
        load_spec(str(file), {"tiling": ["none"], "tile_size": ["448"]})
