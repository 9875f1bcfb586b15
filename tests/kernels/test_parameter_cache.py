"""Values derived from parameters: cached, updated if the parameters change, and dropped with them."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from vlmprof.kernels.common.parameter_cache import cached_from_parameters


def doubled(dtype: torch.dtype, first: Tensor, second: Tensor | None) -> Tensor:
    return (first if second is None else first + second).to(dtype) * 2


def test_it_is_made_once_for_the_same_parameters_and_dtype() -> None:
    first, second = torch.ones(3), torch.ones(3)
    made = cached_from_parameters(doubled, torch.float32, first, second)
    assert cached_from_parameters(doubled, torch.float32, first, second) is made
    assert cached_from_parameters(doubled, torch.bfloat16, first, second) is not made
    assert cached_from_parameters(doubled, torch.float32, first, None) is not made
    assert cached_from_parameters(doubled, torch.float32, second, first) is not made


def test_a_parameter_written_in_place_is_made_anew_and_its_past_forgotten() -> None:
    first = torch.ones(3)
    past = weakref.ref(cached_from_parameters(doubled, torch.float32, first, None))
    first.add_(1)
    assert cached_from_parameters(doubled, torch.float32, first, None).tolist() == [4.0, 4.0, 4.0]
    assert past() is None


def test_a_parameter_that_moved_is_made_anew() -> None:
    first = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    assert cached_from_parameters(doubled, torch.float32, first, None).tolist() == [2.0, 2.0, 2.0]
    first.data = torch.full((3,), 3.0)
    assert cached_from_parameters(doubled, torch.float32, first, None).tolist() == [6.0, 6.0, 6.0]


def test_memory_that_is_freed_and_used_again_is_not_taken_for_the_same() -> None:
    """`Module.to` assigns `.data` like this; the second new tensor is often where the first one was."""
    first = torch.nn.Parameter(torch.zeros(1000), requires_grad=False)
    for value in range(100):
        cached_from_parameters(doubled, torch.float32, first, None)
        first.data = torch.zeros(1000)
        first.data = torch.full((1000,), float(value))
        assert cached_from_parameters(doubled, torch.float32, first, None)[0].item() == 2.0 * value


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_of_an_optimizer_is_noticed(fused: bool) -> None:
    """Fused optimizers do not change the versions of parameters."""
    first = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([first], lr=1.0, fused=fused)
    first.grad = torch.ones(3)
    with torch.no_grad():
        assert cached_from_parameters(doubled, torch.float32, first, None).tolist() == [2.0, 2.0, 2.0]
        optimizer.step()
        assert cached_from_parameters(doubled, torch.float32, first, None).tolist() == [0.0, 0.0, 0.0]


def test_nothing_outlives_its_parameters() -> None:
    first, second = torch.ones(3), torch.ones(3)
    made = weakref.ref(cached_from_parameters(doubled, torch.float32, first, second))
    assert made() is not None
    del second
    assert made() is None


def test_inference_tensors_are_never_cached_from_parameters() -> None:
    with torch.inference_mode():
        first = torch.ones(3)
    assert cached_from_parameters(doubled, torch.float32, first, None) is not cached_from_parameters(
        doubled, torch.float32, first, None
    )
