"""Language models: exact architectures, and weights that exist once, where they were asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vlmprof.backbones.random_weights import fill
from vlmprof.errors import UserError
from vlmprof.vlm.llm import create_llm
from vlmprof.vlm.llm_catalog import facts, names


class LargestFloat32(TorchDispatchMode):
    """Watches every tensor that comes into being."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("name", names())
def test_parameters_are_the_published_ones(name: str) -> None:
    model = create_llm(name, device="meta", dtype=torch.bfloat16)
    known = facts(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
    assert model.get_input_embeddings().weight.shape == (known.vocab_size, known.hidden_size)


def test_no_float32_copy_is_ever_made() -> None:
    with LargestFloat32() as watch:
        model = create_llm("llama-23m", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert watch.elements < min(p.numel() for p in model.parameters() if p.ndim == 2)


def test_small_model_is_sane_and_tied() -> None:
    model = create_llm("llama-23m", dtype=torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.inference_mode():
        logits = model(inputs_embeds=torch.randn(1, 50, 384).bfloat16(), use_cache=False).logits
    assert logits.shape == (1, 50, 32000)
    assert logits.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_a_matrix_may_be_empty(shape: tuple[int, int]) -> None:
    """As of shared experts in a model without any."""
    empty = torch.nn.ParameterList([torch.empty(shape)])
    assert not fill(empty, seed=0).training


def test_seed_decides_the_weights() -> None:
    first, again, other = (create_llm("llama-23m", seed=seed).model.norm for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    one, two, three = (
        create_llm("llama-23m", seed=seed).model.layers[3].mlp.up_proj.weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert other.weight.shape == first.weight.shape


def test_any_causal_lm_from_a_config_file(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "vocab_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in (str(tmp_path), str(tmp_path / "config.json")):
        known = facts(name)
        assert (known.hidden_size, known.vocab_size, known.layers) == (64, 100, 2)
        model = create_llm(name)
        assert model(inputs_embeds=torch.randn(1, 5, 64)).logits.shape == (1, 5, 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "no model_type"),
        ('{"model_type": "cpmant"}', "takes token ids"),
        (
            '{"model_type": "nonsense", "hidden_size": 8, "vocab_size": 8, "num_hidden_layers": 1}',
            "nonsense",
        ),
    ],
)
def test_a_bad_config_file_gets_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as problem:
        create_llm(str(path))
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="vicuna-7b"):
        facts("vicuna7b")
