"""Read weights from other people's files: safely, strictly, and with a one-line error if they do not fit.

No file's code is ever run. What official checkpoints keep beside their tensors (a training configuration, a
log) is read as inert stand-ins; anything else that asks for code is refused.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import torch
from torch import Tensor, nn

from vlmprof import files
from vlmprof.errors import UserError

WRAPPERS = (
    "model", "state_dict", "model_state_dict", "net", "module",
    "model_ema", "state_dict_ema", "ema", "ema_state_dict", "teacher", "student",
)  # fmt: skip
"""Keys under which checkpoints keep the state dict, in order of precedence: weights before their moving
average, and a distilled model's teacher before its student."""
INDEX_SUFFIX = ".index.json"
SHARDED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The weight files of a folder saved by transformers, in its own order of precedence."""


class _StandIn:
    """A placeholder for an object that is not needed."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


INERT: dict[str, type] = {
    "argparse.Namespace": _StandIn,
    "pathlib.PosixPath": _StandIn,
    "numpy.core.multiarray._reconstruct": _StandIn,
    "numpy.core.multiarray.scalar": _StandIn,
    "numpy._core.multiarray._reconstruct": _StandIn,
    "numpy._core.multiarray.scalar": _StandIn,
    "numpy.ndarray": _StandIn,
    "numpy.dtype": _StandIn,
    "mmengine.logging.history_buffer.HistoryBuffer": _StandIn,
    "mmengine.config.config.ConfigDict": OrderedDict,
    "yacs.config.CfgNode": OrderedDict,
}
"""Types that official VMamba, MambaVision, mmdetection and mmsegmentation files contain beside tensors, and
what each is replaced by. torch fills only containers of its own list."""


def read(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict on the CPU from a `.safetensors` or torch file, the index of a sharded one, or a
    folder that holds either. What training wraps around names and tensors is taken off.

    Raises `UserError` in one line for a file that is missing, truncated, no checkpoint, or unsafe.
    """
    state = unwrap(read_content(path))
    if not state:
        raise UserError(f"weights: {path} holds no state dict")
    return state


def read_content(path: str | Path) -> object:
    """Read the whole content of the files that `read` reads, on the CPU. Raises as `read` does."""
    file = files.path_of(path)
    if files.is_folder(file):
        present = [file / name for name in SHARDED if (file / name).is_file()]
        if not present:
            raise UserError(f"weights: {file} holds none of {', '.join(SHARDED)}")
        file = present[0]
    if not files.exists(file) or not file.is_file():
        raise UserError(f"weights: there is no file {file}")
    _check_is_no_stand_in(file)
    if file.name.endswith(INDEX_SUFFIX):
        return _read_shards(file)
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)


def download(url: str) -> Path:
    """Return the file at an official address, from the cache of `torch.hub` or from the network.

    Raises `UserError` in one line when it cannot be fetched.
    """
    folder = Path(torch.hub.get_dir()) / "vlmprof"
    file = folder / unquote(url.removeprefix("https://")).replace("/", "_")
    if not file.exists():
        partial = file.with_suffix(file.suffix + ".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(partial))
            partial.rename(file)
        except OSError as problem:
            raise UserError(f"weights: cannot fetch {url} ({problem})") from problem
    return file


def unwrap(content: object) -> dict[str, Tensor]:
    """Return the tensors by name, from a state dict or a training checkpoint; empty if there are none."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            return _without_wrappers(tensors)
        content = inner
    return {}


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that torch.compile and data-parallel training add to names.

    Of an encoder beside its heads, as DINO's training leaves a teacher, only the encoder is kept.
    """
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    parts = {name.partition(".")[0] for name in state}
    if "backbone" in parts and all(part == "backbone" or part.endswith("head") for part in parts):
        state = strip_prefix(state, ("backbone.",))
    return state


def strip_prefix(state: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """Return the part of a larger model's state under one of `prefixes`, without the prefix, or all of it.

    Of `backbone.`, `encoder.` and the like only what lies under them is kept: the rest are other parts.
    """
    stripped = dict(state)
    for prefix in prefixes:
        inside = {name.removeprefix(prefix): t for name, t in stripped.items() if name.startswith(prefix)}
        stripped = inside or stripped
    return stripped


def part_of(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return the part of a larger model's state that has the names `own` under a common prefix, without it.

    Other parts are left out. Names that differ from those of `own` in a number alone are kept, so that
    `load` refuses the file of a deeper model.
    """
    own = list(own)
    prefixes = {name.removesuffix(anchor) for anchor in own[:8] for name in state if name.endswith(anchor)}
    prefixes = {prefix for prefix in prefixes if not prefix or prefix.endswith(".")}
    if not prefixes:
        return dict(state)
    prefix = max(sorted(prefixes), key=lambda prefix: sum(prefix + name in state for name in own))
    shapes = {_without_numbers(name) for name in own}
    inside = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in inside.items() if _without_numbers(name) in shapes}


def _without_numbers(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)


@torch.no_grad()
def load(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    unused: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Copy `state` into every parameter and buffer of `module`, each in its own dtype and place.

    Strict but for regular expressions: names in the file that match `unused` are passed over, names in
    the module that match `optional` may be absent. Raises `UserError` in one line when it does not fit.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not _matches(name, optional)]
    unexpected = [name for name in state if name not in own and not _matches(name, unused)]
    shared = [name for name in own if name in state]
    misshapen = [name for name in shared if own[name].shape != state[name].shape]
    # integers of a quantized checkpoint are no values without their scales
    other_kind = [
        name for name in shared if own[name].is_floating_point() and not state[name].is_floating_point()
    ]
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing (first {missing[0]})")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected (first {unexpected[0]})")
    if misshapen:
        name = misshapen[0]
        shapes = f"{name}: {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        faults.append(f"{len(misshapen)} of another shape (first {shapes})")
    if other_kind:
        name = other_kind[0]
        dtypes = f"{name}: {state[name].dtype} instead of {own[name].dtype}"
        faults.append(f"{len(other_kind)} of another kind (first {dtypes})")
    if faults:
        raise UserError(f"weights: {source} does not fit this model: {', '.join(faults)}")
    for name in shared:
        try:
            own[name].copy_(state[name])
        except RuntimeError as problem:  # a sparse tensor, or one without data
            raise UserError(f"weights: {source} does not fit this model: {name} ({problem})") from problem


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.match(pattern, name) for pattern in patterns)


def _read_shards(index: Path) -> dict[str, object]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
        outside = [shard for shard in shards if Path(shard).name != shard or shard.endswith(INDEX_SUFFIX)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(f"weights: {index} is no index of a sharded checkpoint") from problem
    if outside:
        raise UserError(f"weights: {index} names {outside[0]}, which is no file beside it")
    state: dict[str, object] = {}
    for shard in shards:
        content = read_content(index.parent / shard)
        state |= content if isinstance(content, dict) else {}
    if missing := places.keys() - state.keys():
        where = places[min(missing)]
        raise UserError(
            f"weights: {index.parent / where} lacks {min(missing)}, which {index.name} places there"
        )
    return state


def _check_is_no_stand_in(file: Path) -> None:
    """Raise `UserError` for what a download leaves in the place of a file."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64).lstrip().lower()
    except OSError as problem:
        raise UserError(f"weights: cannot read {file} ({problem.strerror})") from problem
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"weights: {file} is a pointer of Git LFS; fetch the file itself with git lfs pull")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"weights: {file} is a web page, no checkpoint; download the file itself")


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as problem:
        raise UserError(f"weights: {file} is truncated or no safetensors file ({problem})") from problem


def _read_torch(file: Path) -> object:
    try:
        with torch.serialization.safe_globals([(made, name) for name, made in INERT.items()]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(problem))
        if wanted:
            reason = f"it asks to run {wanted.group(1)}, which no weights need; it may be malicious"
            raise UserError(f"weights: {file} was refused: {reason}") from problem
        raise UserError(f"weights: {file} is truncated, or no checkpoint that torch can read") from problem
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as problem:
        raise UserError(f"weights: {file} is truncated, or no checkpoint that torch can read") from problem
