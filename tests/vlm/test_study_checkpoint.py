"""The study's own checkpoints: connector and LLM in one file."""

import json
from pathlib import Path

import pytest
import torch

from vlmprof.errors import UserError
from vlmprof.vlm.connector import create_connector
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.study_checkpoint import load_study_checkpoint

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "vocab_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.mark.parametrize("name", ["linear", "mlp2", "mlp3"])
def test_both_parts_are_loaded(config: str, name: str, tmp_path: Path) -> None:
    connector, llm = create_connector(name, 48, 64, seed=5), create_llm(config, seed=5)
    llm.resize_token_embeddings(128, mean_resizing=False)
    projector = connector.state_dict()
    if name == "linear":
        projector = {key.removeprefix("0."): tensor for key, tensor in projector.items()}
    model = {
        "projector": {f"projector.{key}": tensor for key, tensor in projector.items()},
        "llm_backbone": {f"llm.{key}": tensor for key, tensor in llm.state_dict().items()},
    }
    torch.save({"model": model}, tmp_path / "latest-checkpoint.pt")
    other, other_llm = create_connector(name, 48, 64), create_llm(config)
    load_study_checkpoint(str(tmp_path / "latest-checkpoint.pt"), other, other_llm)
    tokens = torch.randn(1, 7, 48)
    expected = llm(inputs_embeds=connector(tokens), use_cache=False).logits
    answer = other_llm(inputs_embeds=other(tokens), use_cache=False).logits
    assert answer.shape == (1, 7, 128)
    torch.testing.assert_close(answer, expected)


def test_another_connector_or_file_is_refused(config: str, tmp_path: Path) -> None:
    path = str(tmp_path / "latest-checkpoint.pt")
    connector, llm = create_connector("mlp2", 48, 64), create_llm(config)
    torch.save({"model": {"projector": {"projector.weight": torch.ones(64, 48)}, "llm_backbone": {}}}, path)
    with pytest.raises(UserError, match="does not fit"):
        load_study_checkpoint(path, connector, llm)
    torch.save({"weight": torch.ones(3)}, path)
    with pytest.raises(UserError, match="no checkpoint of the study"):
        load_study_checkpoint(path, connector, llm)
