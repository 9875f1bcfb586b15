"""The connector, the language model, and the VLM that joins them. Importing this loads no torch."""

from __future__ import annotations

PRELOAD = (
    "torch",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "numpy",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "vlmprof.kernels",
    "vlmprof.backbones.vit",
    "vlmprof.backbones.vitdet",
    "vlmprof.backbones.vmamba",
    "vlmprof.vlm.model",
    "vlmprof.vlm.preprocess",
)
"""Modules that a fork server imports once for all cells. None of them touches a GPU."""
