"""VLMs with their own processors, from a configuration alone: three cases made for this project, all types.

The expected numbers are worked out by hand from the geometry in each configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version

from tests.helpers.commands import vlmprof
from tests.helpers.photo_vlms import GLM4V, LLAVA_NEXT, PALIGEMMA
from tests.helpers.small_vlms import gemma3, llava
from tests.helpers.tiny_vlms import tiny_config
from vlmprof.errors import UserError
from vlmprof.fields import resolution_size
from vlmprof.vlm.hf_vlm.own import own_photo, photo_facts
from vlmprof.vlm.hf_vlm.photo import PhotoInputs

Folder = Callable[[Mapping[str, Any]], str]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def written(config: Mapping[str, Any]) -> str:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return f"hf:{tmp_path}"

    return written


@pytest.mark.parametrize(
    ("config", "resolution", "tokens", "tiles", "tile"),
    [
        # a photo of 112 × 112 goes into 112 × 224 beside its thumbnail: 8 × 8 patches twice, a newline a row
        (LLAVA_NEXT, "112", 64 + 8 * (8 + 1), 3, (112, 112)),
        (LLAVA_NEXT, "224", 64 + 16 * (16 + 1), 5, (112, 112)),
        # 8 × 16 patches, merged two by two
        (GLM4V, "224x112", 32, 1, (112, 224)),
        (GLM4V, "448x224", 128, 1, (224, 448)),
        # every photo becomes 112 × 112
        (PALIGEMMA, "224x112", 64, 1, (112, 112)),
    ],
)
def test_tokens_and_tiles_of_a_photo(
    folder: Folder, config: dict[str, Any], resolution: str, tokens: int, tiles: int, tile: tuple[int, int]
) -> None:
    facts = photo_facts(folder(config), resolution_size(resolution), "pil")
    assert (facts.visual_tokens, facts.tiles, facts.encoder_size) == (tokens, tiles, tile)


def test_the_size_of_a_photo_that_is_handed_over_in_patches(tmp_path: Path) -> None:
    if Version(transformers.__version__) < Version("5.24"):
        pytest.importorskip("torchvision", reason="older versions need it for Gemma 4")
    tiny_config("gemma4").save_pretrained(tmp_path)
    facts = photo_facts(f"hf:{tmp_path}", (300, 400), "pil")
    # the most squares of 48 × 48, at most 280 in all, that keep the photo's shape
    assert (facts.visual_tokens, facts.tiles, facts.encoder_size) == (14 * 19, 1, (14 * 48, 19 * 48))


def test_a_photo_too_narrow_to_be_enlarged_is_refused_at_once(tmp_path: Path) -> None:
    llava().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a photo of 1x1000000: its processor would resize it to 56x56000000"):
        photo_facts(f"hf:{tmp_path}", (1_000_000, 1), "pil")


def test_the_prefix_of_paligemma_is_bidirectional(folder: Folder) -> None:
    photo = own_photo(folder(PALIGEMMA), (112, 224), "float32", prompt_tokens=3, backend="pil")
    inputs = photo.inputs("cpu")
    assert inputs["token_type_ids"].eq(0).all()
    assert "labels" not in inputs
    assert (inputs["input_ids"] == 990).sum() == 64


def test_a_batch_is_counted_by_the_image(folder: Folder) -> None:
    photo = own_photo(folder(GLM4V), (112, 224), "float32", prompt_tokens=3, backend="pil", batch_size=2)
    assert (photo.facts.visual_tokens, photo.facts.tiles, photo.facts.sequence_tokens) == (32, 1, 35)
    assert photo.warnings[0].startswith("no preprocessor files")
    assert photo.warnings[1].startswith("no tokenizer files")


def test_a_processor_that_wants_one_list_of_images_for_each_text(tmp_path: Path) -> None:
    gemma3().save_pretrained(tmp_path)
    one, three = (own_photo(f"hf:{tmp_path}", (56, 70), "float32", batch_size=n).facts for n in (1, 3))
    assert one == three


def test_whatever_a_processor_raises_is_one_line(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def divides(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(PhotoInputs, "__call__", divides)
    with pytest.raises(UserError, match=r"does not accept a photo of 70x56 \(division by zero\)"):
        own_photo(folder(PALIGEMMA), (56, 70), "float32")


def test_a_file_beside_the_configuration_is_taken(folder: Folder, tmp_path: Path) -> None:
    name = folder(PALIGEMMA)
    settings = {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 56, "width": 56},
        "image_seq_length": 16,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    photo = own_photo(name, (100, 100), "float32", backend="pil")
    assert (photo.facts.visual_tokens, photo.facts.encoder_size) == (16, (56, 56))
    assert not any("preprocessor" in words for words in photo.warnings)


def test_a_type_without_a_processor_gets_one_line(folder: Folder) -> None:
    with pytest.raises(UserError, match="processor for mistral4"):
        photo_facts(folder({"model_type": "mistral4"}), (112, 112))


@pytest.mark.slow
def test_a_sweep_of_photos(folder: Folder, tmp_path: Path) -> None:
    name = folder(GLM4V)
    ended = vlmprof(
        tmp_path, "sweep", "--vlm", name, "--resolution", "224x112", "--dtype", "float32",
        "--warm-up", "1", "--iterations", "2", "--out", "run",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    row = json.loads((tmp_path / "run" / "rows.jsonl").read_text())
    found = [row[name] for name in ("visual_tokens", "encoder_tokens", "tiles")]
    assert found == [32, 128, 1]
    assert (row["encoder_height_px"], row["encoder_width_px"]) == (112, 224)
    assert all(row[f"host_{stage}_s"] > 0 for stage in ("preprocess", "vision", "connector", "prefill"))
