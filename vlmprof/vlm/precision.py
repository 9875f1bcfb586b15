"""The axis `llm_precision`: which linear layers of an LLM torchao quantizes, and what that needs. No torch.

The output layer keeps its dtype, as in vLLM and in transformers' quantizers. So do embeddings, norms, biases,
and experts that are no linear layers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec

from vlmprof.errors import UserError
from vlmprof.settings import Axes, LLMPrecision, Settings

GROUP_SIZE = 128
"""Weights of a row that share a scale in int4-weight."""
Capability = tuple[int, int]
"""Compute capability of an NVIDIA GPU."""
LEAST_CAPABILITY: dict[LLMPrecision, Capability] = {"int4-weight": (8, 0), "fp8": (8, 9)}
_DEVICES: dict[LLMPrecision, tuple[str, ...]] = {
    "int8-dynamic": ("cpu", "cuda"), "int4-weight": ("cpu", "cuda"), "fp8": ("cuda",)
}  # fmt: skip
"""Devices that torchao has kernels for; int8-weight needs only matrix products."""
_MULTIPLES: dict[LLMPrecision, tuple[int, int]] = {
    "int8-weight": (1, 1), "int8-dynamic": (8, 8), "int4-weight": (16, GROUP_SIZE), "fp8": (16, 16)
}  # fmt: skip
"""What the rows and columns of a weight must be multiples of for its kernels."""


def fits(precision: LLMPrecision, rows: int, columns: int) -> bool:
    """Return whether the kernels of a precision take a linear layer with this (rows, columns) weight."""
    of_rows, of_columns = _MULTIPLES[precision]
    return rows % of_rows == 0 and columns % of_columns == 0


def refusal(axes: Axes, settings: Settings, capability: Capability | None = None) -> str | None:
    """Return why `settings.device` cannot run a cell's LLM in its precision; None if it can.

    Device `auto`, and a GPU of unknown `capability`, are taken to support it.
    """
    precision, kind = axes.llm_precision, settings.device.split(":")[0]
    if precision == "as-dtype" or kind == "auto" or not {"prefill", "decode"} & {*settings.stages}:
        return None
    least = LEAST_CAPABILITY.get(precision)
    if kind not in _DEVICES.get(precision, (kind,)):
        gpu = f"a GPU of compute capability {_dotted(least)} or higher" if least else "a CPU or a CUDA device"
        others = [name for name in _MULTIPLES if kind in _DEVICES.get(name, (kind,))]
        words = " or ".join(filter(None, (", ".join(others[:-1]), others[-1])))
        return f"llm_precision {precision} needs {gpu}; on {kind}, use {words}"
    if kind != "cuda":
        return None
    if least is not None and capability is not None and capability < least:
        return (
            f"llm_precision {precision} needs compute capability {_dotted(least)} or higher, but this GPU "
            f"has {_dotted(capability)}; use int8-weight or int8-dynamic"
        )
    if precision == "int4-weight" and axes.dtype != "bfloat16":
        return f"llm_precision int4-weight needs dtype bfloat16 on a GPU, not {axes.dtype}"
    is_captured = axes.mode == "graphs" and axes.prefill_chunk == "none" and "decode" not in settings.stages
    if precision == "int8-dynamic" and is_captured:
        return (
            "llm_precision int8-dynamic cannot be captured in a CUDA graph, because torchao's int8 product "
            "waits for the GPU; use mode compile"
        )
    return None


def refusals(lines: Sequence[Axes], settings: Settings) -> list[str | None]:
    """Return `refusal` for each of `lines`. Raises `UserError` if none of them can run."""
    found = [refusal(axes, settings) for axes in lines]
    if all(found):
        raise UserError("; ".join(dict.fromkeys(filter(None, found))))
    return found


def check_installed(precisions: Collection[LLMPrecision]) -> None:
    """Raise `UserError` if a precision needs torchao and it is not installed. Does not import it."""
    quantized = [precision for precision in precisions if precision != "as-dtype"]
    if quantized and find_spec("torchao") is None:
        raise UserError(f"llm_precision {quantized[0]} needs torchao: pip install 'vlmprof[quant]'")


def _dotted(capability: Capability | None) -> str:
    return ".".join(map(str, capability or ()))
