"""Encoders that transformers builds, against its own classes, and what is known of them without building."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from tests.helpers.encoders import feature_maps, wrapped
from tests.helpers.golden import golden_image
from vlmprof.backbones import create_backbone, facts, names
from vlmprof.backbones.families_transformers import FAMILIES
from vlmprof.errors import UserError

ENTRIES = {known.name: known for family in FAMILIES for known in family()}
LEVELS = [name for name in ENTRIES if ENTRIES[name].level_dims]
PLAIN = [name for name in ENTRIES if not ENTRIES[name].level_dims]


def config_of(name: str, **more: int) -> transformers.PreTrainedConfig:
    settings = {key: value for key, value in facts(name).config.items() if key != "model_type"}
    return transformers.AutoConfig.for_model(facts(name).config["model_type"], **settings, **more)


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_of_plain_encoders(name: str) -> None:
    encoder = create_backbone(name, device="meta", classifier=True)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == facts(name).parameters


@pytest.mark.parametrize("name", LEVELS)
def test_parameters_of_hierarchical_encoders_with_their_head(name: str) -> None:
    with torch.device("meta"):
        whole = transformers.AutoModelForImageClassification.from_config(config_of(name, num_labels=1000))
    assert sum(parameter.numel() for parameter in whole.parameters()) == facts(name).parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "dropped"),
    [
        ("clip-b", (224, 224), 1),
        ("clip-b", (64, 96), 1),
        ("siglip-b", (96, 48), 0),
        ("dinov2-s", (56, 98), 1),
        ("dinov3-s", (48, 80), 5),
    ],
)
def test_plain_encoders_agree_with_transformers(name: str, size: tuple[int, int], dropped: int) -> None:
    ours = create_backbone(name, image_size=size)
    theirs = transformers.AutoModel.from_config(wrapped(ours).config).eval()
    theirs.load_state_dict(wrapped(ours).state_dict())
    images = golden_image(*size)
    arguments = {"interpolate_pos_encoding": True} if name.startswith(("clip", "siglip")) else {}
    for _ in range(2):
        tokens = ours(images)
    expected = theirs(images, **arguments).last_hidden_state[:, dropped:]
    assert tokens.shape == (1, facts(name).num_tokens(*size), facts(name).embed_dim)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


def test_siglip2_cuts_patches_as_its_processor_does() -> None:
    ours = create_backbone("siglip2-b")
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (3, 48, 80), generator=rng, dtype=torch.uint8)
    processor = transformers.Siglip2ImageProcessorPil(do_resize=True, max_num_patches=15, patch_size=16)
    inputs = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")
    assert inputs["spatial_shapes"].tolist() == [[3, 5]]
    expected = wrapped(ours)(
        pixel_values=inputs["pixel_values"],
        pixel_attention_mask=inputs["pixel_attention_mask"],
        spatial_shapes=inputs["spatial_shapes"],
    ).last_hidden_state
    tokens = ours(pixels[None].float() / 127.5 - 1)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin-t", "convnextv2-t"])
@pytest.mark.parametrize("size", [(224, 224), (75, 109)])
def test_hierarchical_encoders_agree_with_transformers(name: str, size: tuple[int, int]) -> None:
    whole = create_backbone(name, levels="all", image_size=size)
    config = config_of(name)
    config.set_output_features_output_indices(out_features=["stage3"], out_indices=None)
    theirs = transformers.AutoBackbone.from_config(config).eval()
    theirs.load_state_dict(wrapped(whole).state_dict())
    images = golden_image(*size)
    (expected,) = theirs(images).feature_maps
    known = facts(name)
    assert expected.shape[1:] == (known.embed_dim, *known.grid(*size))
    torch.testing.assert_close(whole(images), expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)
    for level, features in enumerate(feature_maps(whole, images), start=1):
        at_level = facts(name, level)
        assert features.shape[1:] == (at_level.embed_dim, *at_level.grid(*size))


@pytest.mark.parametrize("name", LEVELS[:1] + LEVELS[4:5])
def test_a_cut_encoder_gives_the_same_tokens(name: str) -> None:
    cut, whole = create_backbone(name, level=2), create_backbone(name, level=2, levels="all")
    images = golden_image(64, 96)
    torch.testing.assert_close(cut(images), whole(images))
    assert len(feature_maps(cut, images)) == 2


def test_any_encoder_from_a_config_file(tmp_path: Path) -> None:
    config = {
        "model_type": "vit",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 96,
        "patch_size": 8,
        "image_size": 32,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in (f"hf:{tmp_path}", f"hf:{tmp_path / 'config.json'}"):
        known = facts(name)
        assert (known.embed_dim, known.num_tokens(40, 64)) == (48, 40)
        assert create_backbone(name, image_size=(40, 64))(golden_image(40, 64)).shape == (1, 40, 48)


def test_the_vision_part_of_a_larger_model(tmp_path: Path) -> None:
    transformers.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 28,
            "patch_size": 14,
        }
    ).save_pretrained(tmp_path)
    assert create_backbone(f"hf:{tmp_path}")(golden_image(28, 42)).shape == (1, 6, 32)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llama"}, "no image encoder"),
        ({"hidden_size": 3}, "no configuration that transformers can read"),
    ],
)
def test_a_config_without_an_encoder_gets_one_line(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said) as problem:
        facts(f"hf:{tmp_path}")
    assert "\n" not in str(problem.value)


def test_every_family_of_the_study_is_named() -> None:
    families = {facts(name).family.split("-")[0] for name in names()}
    assert families >= {"ViT", "VMamba", "ViTDet", "MambaVision", "MaxViT", "CLIP", "SigLIP", "SigLIP 2"}
    assert families >= {"DINOv2", "DINOv3", "Swin", "ConvNeXt V2"}
