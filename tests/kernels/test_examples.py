"""The examples in docstrings of `vlmprof.kernels`, run as a notebook would."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from vlmprof import kernels

MODULES = ("block.norm_op", "block.op", "common.backends", "cross_scan.op", "selective_scan.op", "ss2d.op")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"vlmprof.kernels.{name}")
    failed, attempted = doctest.testmod(module, extraglobs={"torch": torch})
    assert (failed, attempted > 0) == (0, True)


def test_every_operation_has_an_example() -> None:
    for name in kernels.OPERATIONS:
        assert ">>> " in (getattr(kernels, name).__doc__ or ""), name
