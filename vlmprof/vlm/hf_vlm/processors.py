"""A VLM's own processor: from the files beside its configuration, or its architecture's default, adapted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import transformers
from transformers import AutoTokenizer
from transformers.models.auto import image_processing_auto, processing_auto
from transformers.utils.import_utils import is_torchvision_available

from vlmprof.errors import UserError, message_of
from vlmprof.vlm.hf_vlm.architectures import (
    Architecture,
    architecture,
    first_side,
    for_its_tower,
    vision_config,
)
from vlmprof.vlm.hf_vlm.placeholder_tokenizer import COMMON, NAMED, placeholder_tokenizer
from vlmprof.vlm.hf_vlm.processor_files import ProcessorFiles, read_processor_files

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json")

Backend = Literal["pil", "torchvision"]


@dataclass(frozen=True)
class OwnProcessor:
    """A processor, and what was missing of its files."""

    processor: Any
    """A `ProcessorMixin` of transformers."""
    backend: str
    """What resizes: `pil` or `torchvision`."""
    image_token: str | None
    """The placeholder of an image in a text; None if texts have none."""
    warnings: tuple[str, ...] = ()


def make_processor(name: str, config: Any, folder: Path | None, backend: Backend | None) -> OwnProcessor:
    """Make the processor of the VLM `name` from the files in `folder` or of the hub model, or else the
    architecture's default.

    Raises `UserError` if there is none, or none with this `backend`.
    """
    model_type = config.model_type
    known = for_its_tower(architecture(model_type), config)
    place = name.removeprefix("hf:") if folder is None else str(folder)
    files = read_processor_files(folder, place)
    image_processor_class, chosen = _image_processor_class(name, model_type, known, files, backend)
    by_type = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    processor_name = known.processor or files.processor or by_type.get(model_type)
    try:
        found = processing_auto.processor_class_from_name(processor_name) if processor_name else None
    except ImportError as problem:
        raise UserError(
            f"vlm {name!r}: {processor_name} cannot be imported ({message_of(problem)})"
        ) from problem
    if found is None:
        raise UserError(
            f"vlm {name!r}: transformers {transformers.__version__} has no processor for {model_type}"
        )
    if getattr(found, "is_dummy", False):
        missing = [each for each in getattr(found, "_backends", ()) if each != "torch"]
        needed = " and ".join(missing) or "a package"
        raise UserError(f"vlm {name!r}: {found.__name__} needs {needed}, which is not installed")
    lenient: Any = type(found.__name__, (found,), {"check_argument_for_proper_class": _lenient})
    warnings = []
    try:
        image_processor = None
        if files != ProcessorFiles():
            image_processor = _from_files(image_processor_class, place)
        if image_processor is None:
            warnings.append(f"no preprocessor files: {model_type}'s default processor, fitted to config.json")
            image_processor = image_processor_class(**_fitted(image_processor_class, config, known))
            for attribute, value in known.image_attributes.items():
                setattr(image_processor, attribute, value(config))
        tokenizer = None
        if folder is None or any((folder / name).is_file() for name in TOKENIZER_FILES):
            tokenizer = _from_files(AutoTokenizer, place)
        make = partial(_made, lenient, config, known, files.settings, image_processor)
        if tokenizer is not None:
            processor = make(tokenizer)
        else:
            warnings.append("no tokenizer files: a placeholder tokenizer, one token for each word")
            processor = _with_known_tokens(make, config, known)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError) as problem:
        said = f"{type(problem).__name__}: {message_of(problem)}"
        raise UserError(f"vlm {name!r}: its processor cannot be made ({said})") from problem
    token = getattr(processor, "image_token", None) if known.placeholder is None else known.placeholder
    return OwnProcessor(processor, chosen, None if token is None else str(token), tuple(warnings))


def _from_files(made: Any, place: str) -> Any:
    """Load from the files of a folder or a hub model; return None if there are none."""
    try:
        return made.from_pretrained(place)
    except OSError:
        return None


def _image_processor_class(
    name: str, model_type: str, known: Architecture, files: ProcessorFiles, backend: Backend | None
) -> tuple[Any, str]:
    by_type = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    names = known.image_processor or files.image_processor or by_type.get(model_type)
    if not names:
        raise UserError(
            f"vlm {name!r}: transformers {transformers.__version__} has no image processor for {model_type}"
        )
    order = [backend] if backend else ["torchvision", "pil"]
    for each in order:
        if each in names and (each != "torchvision" or is_torchvision_available()):
            found = image_processing_auto.get_image_processor_class_from_name(names[each])
            # without torchvision, transformers hands out the other class under this name
            if found is not None and not getattr(found, "is_dummy", False) and found.__name__ == names[each]:
                return found, each
    if backend and backend not in names:
        raise UserError(
            f"processor_backend: {model_type} has no {backend} processor, only {', '.join(names)}"
        )
    needs = "" if backend else f" of {model_type}"
    raise UserError(
        f"vlm {name!r}: the torchvision image processor{needs} needs torchvision, which is not installed"
    )


def _lenient(self: Any, argument_name: str, argument: Any) -> Any:
    """Accept any argument: the processors of video and audio, which are not used here, may be missing."""


def _made(
    made: Any,
    config: Any,
    known: Architecture,
    settings: Mapping[str, Any],
    image_processor: Any,
    tokenizer: Any,
) -> Any:
    """Make a processor with the `settings` of its file, or else those of the configuration."""
    given: dict[str, Any] = {}
    known.prepare()
    for name, parameter in inspect.signature(made.__init__).parameters.items():
        if name in ("image_processor", "image_processors", "video_processor"):
            # of videos, some read settings shared with the image processor; no video is processed
            given[name] = image_processor
        elif name.endswith("tokenizer"):
            given[name] = tokenizer
        elif name in ("feature_extractor", "audio_processor"):
            given[name] = None
        elif name in settings:
            given[name] = settings[name]
        elif name in known.processor_arguments:
            given[name] = known.processor_arguments[name](config)
        elif (value := _setting(name, config)) is not None and parameter.default is not value:
            given[name] = value
    return made(**given)


def _with_known_tokens(make: Callable[[Any], Any], config: Any, known: Architecture) -> Any:
    """Make a processor of a tokenizer whose special tokens have the ids of the configuration.

    Nothing lists these tokens, so it is made three times: the first shows which it has; the second, with an
    id for each, which of them it puts in place of an image; the third has the ids of the configuration.
    """
    fixed = {word: _id_of(config, where) for word, where in known.words.items()}
    given = {word: number for word, number in fixed.items() if number is not None}
    vocabulary = config.get_text_config().vocab_size

    def with_ids(ids: Mapping[str, int]) -> Any:
        return make(placeholder_tokenizer(ids, vocabulary, known.unnamed, known.underscored))

    first = with_ids(given)
    named = {name: word for name, word in NAMED.items() if name not in known.unnamed}
    words = {**named, **_words(first)}
    taken = {*given.values(), *(n for n in (token_id(config, name) for name in words) if n is not None)}
    # ordinary tokens have low numbers
    free = [n for n in (*range(100, vocabulary), *range(min(100, vocabulary))) if n not in taken]
    special = dict.fromkeys((*named.values(), *words.values()))
    if len(free) < len(special) + len(COMMON):
        raise ValueError(f"a vocabulary of {vocabulary} is too small for its special tokens")
    numbers = iter(free)
    asked = {word: given[word] if word in given else next(numbers) for word in special}
    second = with_ids({**asked, **given})
    by_id = {number: word for word, number in asked.items()}
    final = dict(asked)
    for name, word in words.items():
        number = token_id(config, name)
        if number is None or word in given or number in given.values():
            continue
        meant = by_id.get(getattr(second, f"{name}_id", None) or -1, word)
        final[meant] = number
    return with_ids({**final, **given})


def _words(processor: Any) -> dict[str, str]:
    """Return a processor's special tokens by attribute, such as `<image>` for `image_token`."""
    found = {}
    for name in dir(processor):
        if name.endswith("_token") and not name.startswith("_"):
            word = getattr(processor, name, None)
            if isinstance(word, str) or hasattr(word, "content"):
                found[name] = str(word)
    return found


def _id_of(config: Any, where: str | int) -> int | None:
    if isinstance(where, int):
        return where
    value = getattr(config, where, None)
    return value if isinstance(value, int) else None


def token_id(config: Any, attribute: str) -> int | None:
    """Return the id of a token such as `image_token` in a configuration, under either name for it."""
    ids = (_id_of(config, f"{attribute}_{ending}") for ending in ("id", "index"))
    return next((number for number in ids if number is not None), None)


ALIASES = {
    "merge_size": "spatial_merge_size",
    "image_seq_length": "mm_tokens_per_image",
    "img_size": "image_size",
    "tile_size": "image_size",
    "max_image_tiles": "max_num_tiles",
    "pooling_ratio": "projector_pooling_ratio",
}
"""Names in configurations of arguments that processors call otherwise."""


def _setting(parameter: str, config: Any) -> Any:
    """Return an argument of a processor from the configuration or that of its vision part."""
    if parameter.endswith("_token") or parameter in ("chat_template", "kwargs", "args", "self"):
        return None
    for holder in (config, getattr(config, "encoder", None), vision_config(config)):
        for name in (parameter, ALIASES.get(parameter, parameter)):
            value = getattr(holder, name, None)
            if value is not None:
                return value
    return None


FITTED = (
    "patch_size", "merge_size", "temporal_patch_size", "image_grid_pinpoints", "tile_size", "max_image_tiles"
)  # fmt: skip


def _fitted(made: Any, config: Any, known: Architecture) -> dict[str, Any]:
    """Return the arguments that adapt an architecture's default image processor to this configuration."""
    given: dict[str, Any] = {}
    for name in FITTED:
        default = getattr(made, name, None)
        if default is None and name not in made.valid_kwargs.__annotations__:
            continue
        value = _setting(name, config)
        if value is None:
            continue
        if isinstance(value, (list, tuple)) and name.endswith("size"):
            value = value[-1]
        if isinstance(default, dict) and isinstance(value, int):
            value = {"height": value, "width": value}
        given[name] = value
    given |= _sizes(made, config)
    for name, make in known.image_arguments.items():
        given[name] = make(config)
    return given


def _sizes(made: Any, config: Any) -> dict[str, Any]:
    """Return the size that the encoder was made for, if the processor resizes every image to one size."""
    side = first_side(getattr(vision_config(config), "image_size", None))
    size = getattr(made, "size", None)
    if not isinstance(side, int) or not isinstance(size, Mapping):
        return {}
    found: dict[str, Any] = {}
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        found["size"] = {"height": side, "width": side}
    elif set(size) == {"shortest_edge"}:
        found["size"] = {"shortest_edge": side}
    if isinstance(getattr(made, "crop_size", None), Mapping):
        found["crop_size"] = {"height": side, "width": side}
    return found
