"""VMamba encoders of the public code, loaded from a checkout, for timing next to ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

BUILDERS = {
    "vmamba-t": "vmamba_tiny_s2l5", "vmamba-s": "vmamba_small_s2l15", "vmamba-b": "vmamba_base_s2l15",
    "vmamba-t-v0": "vanilla_vmamba_tiny", "vmamba-s-v0": "vanilla_vmamba_small",
    "vmamba-b-v0": "vanilla_vmamba_base", "vmamba-t-s1l8": "vmamba_tiny_s1l8",
    "vmamba-s-s1l20": "vmamba_small_s1l20", "vmamba-b-s1l20": "vmamba_base_s1l20",
}  # fmt: skip
"""Functions in MzeroMiko/VMamba's classification/models/vmamba.py by our names of the models they build."""

MODELS = "classification/models"


class PublicEncoder(nn.Module):
    """The public model up to its last level, without the classifier: (batch, 3, height, width) to features.

    For 16-bit dtypes, the weights stay float32 and the model runs under autocast, as in its authors' code,
    because its norms receive float32 scans, which norms with 16-bit weights do not accept.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.parts = nn.Sequential(model.patch_embed, *model.layers)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        # weights are cast in every call, because a CUDA graph must not use casts cached by autocast
        narrow = self.dtype.itemsize == 2
        with torch.autocast(images.device.type, self.dtype, enabled=narrow, cache_enabled=False):
            features: Tensor = self.parts(images)
        return features


SCANS = ("selective_scan_cuda_oflex", "selective_scan_cuda_core", "selective_scan_cuda")
"""Compiled scans that the public code tries; it uses the first that it can import. The last is
mamba_ssm's."""


def why_no_compiled_scan(scans: ModuleType) -> str | None:
    """Return why the public module of scans, `csms6s`, runs no compiled scan, or None if it does. The module
    itself does not report it."""
    # later versions set flags for the scans they found, earlier ones use any that they could import
    flags = [bool(value) for name, value in vars(scans).items() if name.startswith("WITH_SELECTIVESCAN_")]
    if any(flags or [name in vars(scans) for name in SCANS]):
        return None
    return f"it found no compiled scan; add the folder with {SCANS[0]} or {SCANS[2]} to PYTHONPATH"


def accept_any_mamba_ssm(scans: ModuleType) -> None:
    """Let the public module of scans call any version of mamba_ssm; later ones require `cu_seqlens`."""
    build = vars(scans).get(SCANS[2])
    if build is None:
        return

    def fwd(*arguments: Any) -> Any:
        try:
            return build.fwd(*arguments)
        except TypeError:
            return build.fwd(*arguments, None)

    vars(scans)[SCANS[2]] = SimpleNamespace(fwd=fwd)


def check_checkout(checkout: Path, names: Sequence[str]) -> None:
    """Raise ValueError if `checkout` is not the public code or lacks one of these backbones."""
    if not (checkout / MODELS / "vmamba.py").exists():
        raise ValueError(f"{checkout} is not a checkout of MzeroMiko/VMamba: no {MODELS}/vmamba.py")
    for name in names:
        if name not in BUILDERS:
            raise ValueError(f"the public code has no {name!r}; it has {', '.join(BUILDERS)}")


def public_encoder(checkout: Path, name: str, dtype: torch.dtype = torch.float32) -> PublicEncoder:
    """Build an encoder of the public code, with random weights, in evaluation mode, on the CPU.

    The weights are float32; `dtype` is the dtype of the computation. Raises the errors of `check_checkout`,
    and ImportError if there is a GPU on which the public code would silently run its plain scan.
    """
    check_checkout(checkout, [name])
    module = _module(checkout / MODELS)
    scans = sys.modules.get("csms6s")
    if scans is not None and torch.cuda.is_available() and (lacking := why_no_compiled_scan(scans)):
        raise ImportError(lacking)
    return PublicEncoder(getattr(module, BUILDERS[name])(), dtype).eval()


def _module(models: Path) -> ModuleType:
    """Import `vmamba.py` of the checkout once."""
    key = f"public_vmamba:{models.resolve()}"
    if key not in sys.modules:
        sys.path.insert(0, str(models))
        try:
            module = module_at(models / "vmamba.py", key)
        finally:
            sys.path.remove(str(models))
        allow_cpu(module, sys.modules["csm_triton"])
        if "csms6s" in sys.modules:
            accept_any_mamba_ssm(sys.modules["csms6s"])
    return sys.modules[key]


def module_at(path: Path, name: str) -> ModuleType:
    """Import a file of the public code as the module `name`. Errors of the file propagate."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with stub_missing_packages():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _DropPath(nn.Identity):
    """Stochastic depth in evaluation: the identity."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob


def _missing(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the public code called a package that is not installed")


@contextmanager
def stub_missing_packages() -> Iterator[None]:
    """Provide stubs for missing packages that the public file imports but does not need in a forward pass."""
    wanted: dict[str, dict[str, Any]] = {
        "timm.models.layers": {"DropPath": _DropPath, "trunc_normal_": nn.init.trunc_normal_},
        "fvcore.nn": dict.fromkeys(
            ("FlopCountAnalysis", "flop_count_str", "flop_count", "parameter_count"), _missing
        ),
        "einops": {"rearrange": _missing, "repeat": _missing},
    }
    put = []
    for path, names in wanted.items():
        if importlib.util.find_spec(path.split(".")[0]) is not None:
            continue
        for depth in range(1, path.count(".") + 2):
            name = ".".join(path.split(".")[:depth])
            if name not in sys.modules:
                sys.modules[name] = ModuleType(name)
                put.append(name)
        vars(sys.modules[path]).update(names)
    try:
        yield
    finally:
        for name in put:
            del sys.modules[name]


def allow_cpu(module: Any, layout: Any) -> None:
    """Let cross-scan and cross-merge of a public module run on a CPU, by their underlying classes in
    `layout`: the functions enter a CUDA device for any input."""

    def anywhere(on_gpu: Any, on_cpu: Any) -> Any:
        def run(
            x: Tensor, in_channel_first: bool = True, out_channel_first: bool = True,
            one_by_one: bool = False, scans: int = 0, force_torch: bool = False,
        ) -> Any:  # fmt: skip
            chosen = (in_channel_first, out_channel_first, one_by_one, scans)
            return on_gpu(x, *chosen, force_torch) if x.is_cuda else on_cpu(x, *chosen)

        return run

    module.cross_scan_fn = anywhere(module.cross_scan_fn, layout.CrossScanF.apply)
    module.cross_merge_fn = anywhere(module.cross_merge_fn, layout.CrossMergeF.apply)
