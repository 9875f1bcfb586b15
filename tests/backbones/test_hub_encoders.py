"""Facts and outputs of encoders that only a configuration describes, against transformers' own classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from typer.testing import CliRunner

from tests.helpers.encoders import wrapped
from tests.helpers.golden import golden_image
from vlmprof.backbones import create_backbone, facts
from vlmprof.cli.app import app
from vlmprof.errors import UserError
from vlmprof.plan import Cell, make_plan
from vlmprof.spec import build_spec

SWIN = {"model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
RESNET = {
    "model_type": "resnet",
    "hidden_sizes": [16, 32, 64, 128],
    "depths": [1, 1, 1, 1],
    "embedding_size": 16,
}
PLAIN = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
PYRAMIDS: dict[str, dict[str, Any]] = {
    "swin": SWIN,
    "swinv2": {**SWIN, "model_type": "swinv2", "image_size": 64},
    "resnet": RESNET,
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]},
    "focalnet": {
        "model_type": "focalnet",
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [32, 64, 128, 128],
    },
    "hiera": {"model_type": "hiera", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
}
NATIVE = {"hiera": (224, 224)}


def named(tmp_path: Path, config: dict[str, Any]) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return f"hf:{tmp_path}"


def plan_of(name: str, resolution: str, **axes: object) -> list[Cell]:
    return make_plan(
        build_spec({}, {"backbone": [name], "resolution": [resolution], "llm": ["llama-23m"], **axes}, "test")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "tokens", "d_model"),
    [
        ({**SWIN, "image_size": 112}, 49, 64),
        (RESNET, 49, 64),
        (
            {"model_type": "internvl_vision", **PLAIN, "image_size": [112, 112], "patch_size": [14, 14]},
            64,
            64,
        ),
        ({"model_type": "vit_mae", **PLAIN, "image_size": 112, "patch_size": 14}, 64, 64),
        ({"model_type": "yolos", **PLAIN, "image_size": [112, 112]}, 49, 64),
        ({"model_type": "vitdet", **PLAIN, "image_size": 112}, 49, 64),
        ({"model_type": "smolvlm_vision", **PLAIN, "image_size": 112, "patch_size": 14}, 64, 64),
        ({"model_type": "vit", **PLAIN, "image_size": 112, "patch_size": [14, 14]}, 64, 64),
        ({"model_type": "clip_vision_model", **PLAIN, "image_size": 224, "patch_size": 56}, 4, 64),
        (
            {"model_type": "clip_vision_model", **PLAIN, "image_size": [112] * 2, "patch_size": [14] * 2},
            64,
            64,
        ),
        (
            {
                "model_type": "lw_detr_vit",
                **PLAIN,
                "image_size": 112,
                "patch_size": 14,
                "num_windows": 4,
                "num_windows_side": 2,
            },
            64,
            64,
        ),
        ({"model_type": "blip", "vision_config": {**PLAIN, "image_size": 112, "patch_size": 14}}, 64, 64),
        ({"model_type": "flava", "image_config": {**PLAIN, "image_size": 112, "patch_size": 14}}, 64, 64),
        (
            {
                "model_type": "vision-encoder-decoder",
                "decoder": {"model_type": "trocr"},
                "encoder": {"model_type": "vit", **PLAIN, "image_size": 112, "patch_size": 14},
            },
            64,
            64,
        ),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else None,
)
def test_what_is_planned_and_shown_is_what_comes_out(
    tmp_path: Path, config: dict[str, Any], tokens: int, d_model: int
) -> None:
    name = named(tmp_path, config)
    (cell,) = plan_of(name, "112")
    assert cell.visual_tokens == tokens
    shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "112"], catch_exceptions=False).stdout
    assert f"{tokens} of {d_model} channels" in shown
    encoder = create_backbone(name, image_size=(112, 112))
    assert encoder(golden_image(112, 112)).shape == (1, tokens, d_model)


@pytest.mark.slow
def test_a_map_with_as_many_channels_as_rows_is_read_the_right_way(tmp_path: Path) -> None:
    # 56 channels, last, on a grid of 56 x 56 for the image size that the configuration names
    config = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 56, "num_attention_heads": 1,
        "image_size": [224, 224], "blocks_per_stage": [1], "embed_dim_per_stage": [56],
        "num_attention_heads_per_stage": [1], "window_size_per_stage": [8], "global_attention_blocks": [],
        "num_query_pool_stages": 0,
    }  # fmt: skip
    name = named(tmp_path, config)
    encoder = create_backbone(name, image_size=(64, 96))
    images = golden_image(64, 96)
    with torch.inference_mode():
        expected = wrapped(encoder)(images).last_hidden_state
        assert expected.shape == (1, 16, 24, 56)
        torch.testing.assert_close(encoder(images), expected.flatten(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("architecture", list(PYRAMIDS))
def test_a_feature_level_is_transformers_own_stage(tmp_path: Path, architecture: str, level: int) -> None:
    name = named(tmp_path, PYRAMIDS[architecture])
    size = NATIVE.get(architecture, (64, 96))
    known = facts(name, level)
    whole = create_backbone(name, level=level, levels="all", image_size=size)
    config = transformers.AutoConfig.from_pretrained(tmp_path, out_features=[f"stage{level}"])
    theirs = transformers.AutoBackbone.from_config(config).eval()
    theirs.load_state_dict(wrapped(whole).state_dict())
    images = golden_image(*size)
    with torch.inference_mode():
        (expected,) = theirs(images).feature_maps
        tokens = whole(images)
        assert expected.shape[1:] == (known.embed_dim, *known.grid(*size))
        torch.testing.assert_close(tokens, expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
        cut = create_backbone(name, level=level, image_size=size)
        torch.testing.assert_close(cut(images), tokens, rtol=1e-5, atol=1e-5)
    fewer = sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    assert fewer == (level < 4 and cut.backends.get("levels") != "all")
    assert architecture in ("focalnet", "hiera") or fewer == (level < 4)


def test_a_cut_pyramid_loads_the_weights_of_the_whole_one(tmp_path: Path) -> None:
    name = named(tmp_path, SWIN)
    whole = create_backbone(name, level=2, levels="all", seed=3)
    torch.save(wrapped(whole).state_dict(), tmp_path / "weights.pt")
    cut = create_backbone(name, level=2, weights=str(tmp_path / "weights.pt"))
    images = golden_image(64, 64)
    torch.testing.assert_close(cut(images), whole(images))


def test_tokens_between_others_are_the_images_own(tmp_path: Path) -> None:
    config = {"model_type": "yolos", **PLAIN, "image_size": [64, 96], "num_detection_tokens": 7}
    name = named(tmp_path, config)
    encoder = create_backbone(name)
    images = golden_image(64, 96)
    with torch.inference_mode():
        expected = wrapped(encoder)(images).last_hidden_state
        assert expected.shape == (1, 1 + 24 + 7, 64)
        torch.testing.assert_close(encoder(images), expected[:, 1:25])


@pytest.mark.parametrize("model_type", ["pixtral", "smolvlm_vision", "vit_mae"])
def test_images_of_a_batch_are_encoded_as_they_are_alone(tmp_path: Path, model_type: str) -> None:
    config = {"model_type": model_type, **PLAIN, "image_size": 64, "patch_size": 16, "head_dim": 16}
    name = named(tmp_path, config)
    encoder = create_backbone(name)
    images = torch.stack([golden_image(48, 64)[0], golden_image(48, 64)[0].flip(1)])
    with torch.inference_mode():
        alone = torch.cat([encoder(image[None]) for image in images])
        assert alone.shape == (2, facts(name).num_tokens(48, 64), 64)
        torch.testing.assert_close(encoder(images), alone, rtol=1e-4, atol=1e-5)


def test_no_patch_is_dropped_and_they_stay_in_order(tmp_path: Path) -> None:
    name = named(tmp_path, {"model_type": "vit_mae", **PLAIN, "image_size": 112, "patch_size": 14})
    encoder = create_backbone(name)
    images = golden_image(112, 112)
    with torch.inference_mode():
        embed: Any = wrapped(encoder).get_submodule("embeddings")
        patches = embed.patch_embeddings(images)
        kept, mask, order = embed(images, noise=torch.arange(64)[None], interpolate_pos_encoding=False)
        placed = patches + embed.position_embeddings[:, 1:]
    assert order.tolist() == [list(range(64))]
    assert not mask.any()
    torch.testing.assert_close(kept[:, 1:], placed)
    assert torch.equal(encoder(images), encoder(images))


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24"),
    reason="seen with 5.17 to read values of the mask, and with 5.24 not to",
)
def test_a_tower_without_padding_gives_what_it_gives_with_a_full_mask(tmp_path: Path) -> None:
    config = {"model_type": "smolvlm_vision", **PLAIN, "image_size": 64, "patch_size": 16}
    encoder = create_backbone(named(tmp_path, config))
    images = golden_image(48, 64)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), wrapped(encoder)(images).last_hidden_state)


def test_an_encoder_of_one_size_says_so(tmp_path: Path) -> None:
    name = named(tmp_path, PYRAMIDS["hiera"])
    assert facts(name).fixed_size == (224, 224)
    with pytest.raises(UserError, match="the nearest accepted size is 224"):
        plan_of(name, "256")
    assert plan_of(name, "200", fit="pad")[0].height_px == 224
    shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "512"])
    assert "it can encode 224x224" in str(shown.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "videomae", **PLAIN}, "cannot encode an image by itself"),
        ({"model_type": "rt_detr", "num_queries": 300}, "no grid"),
        ({"model_type": "maskformer"}, "no last hidden state"),
        ({"model_type": "gemma4_vision"}, "needs more than an image: pixel_position_ids"),
        ({"model_type": "llama"}, "no image encoder"),
        ({"model_type": "videomae", **PLAIN}, "it takes 16 images at a time"),
        ({"model_type": "rt_detr"}, r"its backbone_config \(rt_detr_resnet\).* may be named by itself"),
        ({"model_type": "video_llama_3"}, "image: grid_thw, merge_sizes; .*measured as a whole, with --vlm"),
        ({"model_type": "vit", **PLAIN, "patch_size": [16, 8]}, "only square patches are supported"),
        ({"model_type": "vit", **PLAIN, "num_channels": 1}, "Expected 1 but got 3"),
        ({"model_type": "swin", "depths": 3}, "no configuration that transformers can read"),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_refused_alike_in_one_line(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    name = named(tmp_path, config)
    with pytest.raises(UserError, match=said) as planned:
        plan_of(name, "224")
    shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "224"])
    assert str(shown.exception) == str(planned.value)
    assert "\n" not in str(planned.value)
