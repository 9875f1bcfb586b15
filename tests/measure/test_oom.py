"""Messages that mean out of memory, and messages that only resemble them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import torch

from vlmprof.measure.oom import is_out_of_memory, says_out_of_memory

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


def wraps() -> None:
    try:
        raise OUT
    except torch.OutOfMemoryError as error:
        raise ValueError("the model could not be built") from error


def wraps_twice() -> None:
    try:
        wraps()
    except ValueError as error:
        raise KeyError("no cell") from error


def wraps_in_words() -> None:
    try:
        raise OUT
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"backend failed: {error}") from None


def falls_back_and_fails() -> None:
    try:
        torch.empty(1 << 60)
    except RuntimeError:
        torch.zeros(1, 4, 8).index_select(1, torch.tensor([10**6]))


def hides() -> None:
    try:
        raise OUT
    except torch.OutOfMemoryError:
        raise ValueError("the smaller size does not fit the positions") from None


def cleans_up_and_fails() -> None:
    try:
        raise OUT
    finally:
        raise RuntimeError("the hook was removed twice")


@pytest.mark.parametrize(
    "error",
    [
        OUT,
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        raised(lambda: torch.empty(1 << 60)),
        raised(lambda: bytearray(1 << 60)),
        raised(wraps),
        raised(wraps_twice),
        raised(wraps_in_words),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:50],
)
def test_out_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("call", [falls_back_and_fails, hides, cleans_up_and_fails])
def test_a_memory_error_that_was_handled_is_not_the_reason(call: Callable[[], object]) -> None:
    assert not is_out_of_memory(raised(call))


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "Triton Error [CUDA]: out of memory",
        "MPS backend out of memory (MPS allocated: 10 GB)",
        "HIP out of memory. Tried to allocate 1 GiB",
        "cuda runtime error (2) : out of memory at /pytorch/aten/src/THC/THCGeneral.cpp:50",
        "OutOfMemoryError: CUDA out of memory.",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried",
        "[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried",
        "mmap failed: Cannot allocate memory",
        "Failed to allocate 1048576 bytes for the workspace",
        "could not allocate a buffer of 3.5 GiB",
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        "could not create a memory object",
    ],
)  # fmt: skip
def test_words_of_libraries(message: str) -> None:
    assert says_out_of_memory(message)
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize(
    "message",
    [
        "INDICES element is out of DATA bounds",
        "could not create a memory-mapped file",
        "cannot allocate memory-mapped storage twice",
        "no out of memory handler is installed",
        "not enough memory channels in the weights",
        "failed to allocate a name for this module",
        "index 7 is out of memory bank range",
        "an out-of-memory test",
        "could not create a memory format for 5 dimensions",
    ],
)
def test_similar_words(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_only_errors_of_the_runtime_are_taken_by_their_words() -> None:
    assert not is_out_of_memory(ValueError("write oom for cells that ran out of memory"))
