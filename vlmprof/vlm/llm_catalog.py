"""What is known of every language model without building it, and without torch.

A name is one of `names()`, a path to a transformers `config.json` (or its folder), or `hf:NAME` for a
named hub model, the only one that may use the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmprof.errors import UserError, unknown


@dataclass(frozen=True)
class LLMFacts:
    """One causal language model, as transformers builds it."""

    name: str
    """As written in a spec: `vicuna-7b`."""
    model_type: str
    """transformers' name of the architecture: `llama`."""
    hidden_size: int
    """Channels of each token embedding: what a connector must produce."""
    vocab_size: int
    layers: int
    parameters: int | None
    """Parameters as published, tied matrices counted once; `None` when nobody said."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture's transformers configuration."""
    source: str = ""
    """Where the architecture is published, or what it is instead."""
    hub_name: str | None = None
    """The hub model whose configuration has to be fetched, for `hf:NAME`."""


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
    path = Path(name).expanduser()
    if path.suffix == ".json" or "/" in name or path.is_dir():
        return _from_file(name, path / "config.json" if path.is_dir() else path)
    raise unknown("language model", name, _ENTRIES)


def _from_file(name: str, path: Path) -> LLMFacts:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
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
        config = AutoConfig.from_pretrained(hub_name)
    except (OSError, ValueError, KeyError) as problem:
        first_line = str(problem).strip().splitlines()[0]
        raise UserError(f"language model {name!r}: no configuration of that name ({first_line})") from problem
    return _from_config(name, config.to_dict(), source=f"hub model {hub_name}", hub_name=hub_name)


def _from_config(name: str, config: Mapping[str, Any], source: str, hub_name: str | None = None) -> LLMFacts:
    sizes = {key: config.get(key) for key in ("hidden_size", "vocab_size")}
    sizes["num_hidden_layers"] = config.get("num_hidden_layers") or config.get("n_layer")
    missing = [key for key, value in sizes.items() if not isinstance(value, int)]
    if missing:
        raise UserError(f"language model {name!r}: its configuration gives no {' and no '.join(missing)}")
    return LLMFacts(
        name=name,
        model_type=config["model_type"],
        hidden_size=config["hidden_size"],
        vocab_size=config["vocab_size"],
        layers=sizes["num_hidden_layers"] or 0,
        parameters=None,
        config={key: value for key, value in config.items() if key not in ("model_type", "dtype")},
        source=source,
        hub_name=hub_name,
    )


def _llama(
    name: str, parameters: int, source: str, *, hidden: int, layers: int, heads: int, mlp: int, **rest: Any
) -> LLMFacts:
    config = {
        "vocab_size": 32000,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        **rest,
    }
    return LLMFacts(
        name=name,
        model_type="llama",
        hidden_size=hidden,
        vocab_size=config["vocab_size"],
        layers=layers,
        parameters=parameters,
        config=config,
        source=source,
    )


_ENTRIES: dict[str, LLMFacts] = {
    entry.name: entry
    for entry in (
        _llama(
            "vicuna-7b",
            6_738_415_616,
            "lmsys/vicuna-7b-v1.5 (Llama-2-7B)",
            hidden=4096,
            layers=32,
            heads=32,
            mlp=11008,
        ),
        _llama(
            "llama-23m",
            22_909_824,
            "no published model: Llama's architecture made small, to run the tool on a CPU",
            hidden=384,
            layers=6,
            heads=6,
            mlp=1024,
            tie_word_embeddings=True,
        ),
    )
}
