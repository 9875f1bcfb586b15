"""VLMs with tokenizer and preprocessor files, as downloaded ones have, against transformers' own loader.

The tokenizer is a small byte-pair encoding, trained here, with the model's special tokens at their ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoProcessor, PreTrainedTokenizerFast

from tests.helpers.photo_vlms import GLM4V, LLAVA, LLAVA_NEXT, PALIGEMMA, PIXTRAL
from vlmprof.settings import ProcessorBackend
from vlmprof.vlm.hf_vlm.model import read_config
from vlmprof.vlm.hf_vlm.own import own_photo
from vlmprof.vlm.hf_vlm.processors import make_processor

SENTENCES = [
    "What is a cat doing in a house?",
    "A dog and a bird sit on a tree.",
    "Count a ball, then a box.",
]
GLM4V_TOKENS = {
    "<|image|>": 990, "<|video|>": 991, "<|begin_of_image|>": 992, "<|end_of_image|>": 993,
}  # fmt: skip


def save_tokenizer(folder: Path, special: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    missing = min(special.values()) - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<unused{i}>" for i in range(missing)])
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    assert {word: tokenizer.token_to_id(word) for word in special} == special
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "special", "tokens"),
    [
        (LLAVA_NEXT, {"<image>": 999}, 64 + 16 * (8 + 1)),
        (GLM4V, GLM4V_TOKENS, 32),
        (PALIGEMMA, {"<image>": 990}, 64),
    ],
    ids=["llava_next", "glm4v", "paligemma"],
)
def test_files_go_the_way_of_a_download(
    config: dict[str, Any], special: dict[str, int], tokens: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = f"hf:{tmp_path}"
    save_tokenizer(tmp_path, special)
    loaded, folder = read_config(name)
    make_processor(name, loaded, folder, "pil").processor.save_pretrained(tmp_path)

    backend: ProcessorBackend = "auto" if config is GLM4V else "pil"
    photo = own_photo(name, (224, 112), "float32", prompt_tokens=4, backend=backend)
    assert photo.warnings == (), "nothing stands in for a file"
    assert photo.facts.visual_tokens == tokens

    inputs = photo.inputs("cpu")
    if config is GLM4V:
        pytest.importorskip("torchvision", reason="transformers' loader makes its video processor too")
    processor = AutoProcessor.from_pretrained(tmp_path, **({} if config is GLM4V else {"backend": "pil"}))
    text = f"{processor.image_token} a a a a"
    expected = processor(images=photo.photos, text=[text], return_tensors="pt")
    assert inputs["input_ids"].tolist() == expected["input_ids"].tolist()
    torch.testing.assert_close(inputs["pixel_values"], expected["pixel_values"])
    word = processor.tokenizer.convert_tokens_to_ids("Ġa")
    assert (inputs["input_ids"] == word).sum() == 4, "a prompt token is one token of a trained tokenizer too"


def test_files_name_the_class_of_the_image_processor(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAVA))
    settings = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 112, "width": 112}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    own = make_processor(f"hf:{tmp_path}", *read_config(f"hf:{tmp_path}"), "pil")
    assert type(own.processor.image_processor).__name__ == "SiglipImageProcessorPil"
    photo = own_photo(f"hf:{tmp_path}", (300, 200), "float32", backend="pil")
    assert (photo.facts.visual_tokens, photo.facts.encoder_size) == (64, (112, 112))


@pytest.mark.parametrize("with_files", [True, False])
def test_the_processor_of_pixtral(with_files: bool, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="its processor needs it")
    (tmp_path / "config.json").write_text(json.dumps(PIXTRAL))
    if with_files:
        images = {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 112}}
        images["patch_size"] = {"height": 14, "width": 14}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
        settings = {"processor_class": "PixtralProcessor", "patch_size": 14}
        (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    photo = own_photo(f"hf:{tmp_path}", (112, 224), "float32")
    # with the files, at most 112 pixels; rows of patches end with a token of their own
    rows, columns = (4, 8) if with_files else (8, 16)
    assert photo.facts.visual_tokens == rows * columns
    assert photo.facts.sequence_tokens == rows * (columns + 1)
    assert photo.facts.encoder_size == (14 * rows, 14 * columns)
