"""What is known of every language model without building it; of those known by name, without torch.

A name is one of `names()`, a path to a transformers `config.json` (or its folder), or `hf:NAME` for a
named hub model, the only one that may use the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmprof import files
from vlmprof.errors import UserError, message_of, unknown
from vlmprof.vlm.llm_config import built_facts
from vlmprof.vlm.llm_facts import LLMFacts


def names() -> list[str]:
    """Every language model known by name."""
    return list(_ENTRIES)


def facts(name: str) -> LLMFacts:
    """What is known of a language model; see the head of this file for the names.

    Raises `UserError` in one line for an unknown name, or a file that is no transformers configuration.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    if name.startswith("hf:"):
        return _hub(name)
    path = files.path_of(name)
    if path.suffix == ".json" or "/" in name or files.is_folder(path):
        return _from_file(name, path / "config.json" if files.is_folder(path) else path)
    raise unknown("language model", name, _ENTRIES)


def check(
    name: str,
    stages: Sequence[str],
    logits: str = "all",
    attention: str = "auto",
    in_chunks: bool = False,
) -> None:
    """Raise `UserError` for an unknown language model, or one that does not do what is asked of it."""
    known = facts(name)
    if not {"prefill", "decode"} & {*stages}:
        return
    if "decode" in stages and not known.decodes:
        raise UserError(f"language model {name!r}: {known.model_type} keeps no state, so it cannot decode")
    if in_chunks and not known.chunks:
        raise UserError(
            f"language model {name!r}: {known.model_type} cannot prefill in chunks, because only single "
            "tokens extend its state; use prefill_chunk none"
        )
    if logits == "last" and not known.keeps_last_logits:
        raise UserError(f"language model {name!r}: {known.model_type} gives all logits; use logits all")
    if attention != "auto" and known.attention not in (None, "sdpa"):
        raise UserError(
            f"attention {attention}: {name} attends by transformers' {known.attention} code, which has no "
            "backends to choose from; use auto"
        )


def _from_file(name: str, path: Path) -> LLMFacts:
    try:
        config = files.read_json(path)
    except OSError as problem:
        raise UserError(f"language model {name!r}: cannot read {path} ({problem.strerror})") from problem
    except ValueError as problem:
        raise UserError(f"language model {name!r}: {path} is not JSON ({problem})") from problem
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"language model {name!r}: {path} has no model_type: no transformers config")
    return _from_config(name, config, source=str(path))


def _hub(name: str) -> LLMFacts:
    """A hub model's configuration, from the local cache if it is there, else from the network."""
    from transformers import AutoConfig

    hub_name = name.removeprefix("hf:")
    try:
        files.check_regular(Path(hub_name))
        config = AutoConfig.from_pretrained(hub_name)
    except (OSError, ValueError, KeyError) as problem:
        said = message_of(problem)
        raise UserError(f"language model {name!r}: no configuration of that name ({said})") from problem
    return _from_config(name, config.to_dict(), source=f"hub model {hub_name}")


def _from_config(name: str, config: Mapping[str, Any], source: str) -> LLMFacts:
    values = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
    return replace(built_facts(name, config["model_type"], values), source=source)


def _decoder(
    name: str,
    parameters: int,
    source: str,
    *,
    model_type: str = "llama",
    vocab: int = 32000,
    hidden: int,
    layers: int,
    heads: int,
    mlp: int,
    **rest: Any,
) -> LLMFacts:
    """A transformer decoder; `rest` is what sets its configuration apart from its family's defaults."""
    config = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **rest,
    }
    return LLMFacts(name, model_type, hidden, vocab, layers, parameters, config, source)


_LLAMA_2: dict[str, Any] = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


_ENTRIES: dict[str, LLMFacts] = {
    entry.name: entry
    for entry in (
        _decoder(
            "vicuna-7b", 6_738_415_616, "lmsys/vicuna-7b-v1.5 (Llama-2-7B)", hidden=4096, layers=32, heads=32,
            mlp=11008, **_LLAMA_2
        ),
        _decoder(
            "vicuna-13b", 13_015_864_320, "lmsys/vicuna-13b-v1.5 (Llama-2-13B)", hidden=5120, layers=40,
            heads=40, mlp=13824, **_LLAMA_2
        ),
        _decoder(
            "llama-3.1-8b", 8_030_261_248, "meta-llama/Llama-3.1-8B", vocab=128256, hidden=4096, layers=32,
            heads=32, mlp=14336, num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5,
            rope_parameters=_LLAMA_3_ROPE
        ),
        _decoder(
            "qwen2.5-0.5b", 494_032_768, "Qwen/Qwen2.5-0.5B", model_type="qwen2", vocab=151936, hidden=896,
            layers=24, heads=14, mlp=4864, num_key_value_heads=2, tie_word_embeddings=True,
            max_position_embeddings=32768, rope_parameters=_rope(1e6)
        ),
        _decoder(
            "qwen2.5-1.5b", 1_543_714_304, "Qwen/Qwen2.5-1.5B", model_type="qwen2", vocab=151936, hidden=1536,
            layers=28, heads=12, mlp=8960, num_key_value_heads=2, tie_word_embeddings=True,
            max_position_embeddings=131072, rope_parameters=_rope(1e6)
        ),
        _decoder(
            "qwen2.5-7b", 7_615_616_512, "Qwen/Qwen2.5-7B", model_type="qwen2", vocab=152064, hidden=3584,
            layers=28, heads=28, mlp=18944, num_key_value_heads=4, max_position_embeddings=131072,
            rope_parameters=_rope(1e6)
        ),
        _decoder(
            "qwen3-4b", 4_022_468_096, "Qwen/Qwen3-4B", model_type="qwen3", vocab=151936, hidden=2560,
            layers=36, heads=32, mlp=9728, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
            max_position_embeddings=40960, rope_parameters=_rope(1e6)
        ),
        _decoder(
            "qwen3-8b", 8_190_735_360, "Qwen/Qwen3-8B", model_type="qwen3", vocab=151936, hidden=4096,
            layers=36, heads=32, mlp=12288, num_key_value_heads=8, head_dim=128,
            max_position_embeddings=40960, rope_parameters=_rope(1e6)
        ),
        _decoder(
            "phi-3-mini", 3_821_079_552, "microsoft/Phi-3-mini-4k-instruct", model_type="phi3", vocab=32064,
            hidden=3072, layers=32, heads=32, mlp=8192, max_position_embeddings=4096,
            original_max_position_embeddings=4096, sliding_window=2047, pad_token_id=32000
        ),
        _decoder(
            "smollm2-1.7b", 1_711_376_384, "HuggingFaceTB/SmolLM2-1.7B", vocab=49152, hidden=2048, layers=24,
            heads=32, mlp=8192, tie_word_embeddings=True, max_position_embeddings=8192, rms_norm_eps=1e-5,
            rope_parameters=_rope(130000.0)
        ),
        LLMFacts(
            name="mamba-2.8b",
            model_type="mamba",
            hidden_size=2560,
            vocab_size=50280,
            layers=64,
            parameters=2_768_345_600,
            config={"hidden_size": 2560, "vocab_size": 50280, "num_hidden_layers": 64, "state_size": 16},
            source="state-spaces/mamba-2.8b-hf",
            chunks=False,
        ),
        _decoder(
            "llama-23m", 22_909_824,
            "no published model: Llama's architecture made small, to run the tool on a CPU",
            hidden=384, layers=6, heads=6, mlp=1024, tie_word_embeddings=True, **_LLAMA_2
        ),
    )
}  # fmt: skip
