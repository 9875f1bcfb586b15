"""What the files beside a configuration, or those of a hub model, say of its processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import BaseImageProcessor, ProcessorMixin
from transformers.models.auto import image_processing_auto, processing_auto

NAMES = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")


@dataclass(frozen=True)
class ProcessorFiles:
    """The classes and arguments that processor files name."""

    image_processor: Mapping[str, str] = field(default_factory=dict)
    """The image processor's classes by backend; empty if transformers has none of this name."""
    processor: str | None = None
    """The processor's class, if transformers has it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The processor's arguments."""


def read_processor_files(folder: Path | None, place: str) -> ProcessorFiles:
    """Read the files in `folder`, or those of the hub model `place`. They may be missing."""
    if folder is not None and not any((folder / name).is_file() for name in NAMES):
        return ProcessorFiles()
    of_images = _read(lambda: BaseImageProcessor.get_image_processor_dict(place))
    settings = _read(lambda: ProcessorMixin.get_processor_dict(place))
    named = str(of_images.get("image_processor_type", ""))
    base = named.removesuffix("Fast").removesuffix("Pil")
    classes = {"torchvision": base, "pil": f"{base}Pil"} if base else {}
    find_class = image_processing_auto.get_image_processor_class_from_name
    processor = settings.get("processor_class") or of_images.get("processor_class")
    if not processor or processing_auto.processor_class_from_name(processor) is None:
        processor = None
    known = {backend: name for backend, name in classes.items() if find_class(name) is not None}
    return ProcessorFiles(known, processor, settings)


def _read(files: Callable[[], Any]) -> dict[str, Any]:
    try:
        found, _ = files()
    except OSError:
        return {}
    return dict(found)
