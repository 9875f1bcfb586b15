"""A backbone from the user's own file, named `module:function`."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vlmprof.backbones.catalog import users_factory
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError, error_line

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """Call the user's factory, with the options if it has an argument for them."""
    factory = users_factory(facts.name)
    inputs = inspect.signature(factory).parameters.values()
    needed = [one for one in inputs if one.default is one.empty and one.kind in _BY_PLACE]
    if len(needed) > 1:
        raise UserError(
            f"backbone {facts.name!r} takes {len(needed)} arguments; it may take BuildOptions alone"
        )
    try:
        module = factory(options) if needed or any(map(_is_for_options, inputs)) else factory()
    except (Exception, SystemExit) as problem:
        if isinstance(problem, RuntimeError | MemoryError):
            raise  # memory may have run out
        raise UserError(f"backbone {facts.name!r}: {error_line(problem)}") from problem
    if not isinstance(module, nn.Module):
        raise UserError(
            f"backbone {facts.name!r} returned a {type(module).__name__}; it must return a torch.nn.Module"
        )
    if any(map(is_lazy, module.parameters())):
        raise UserError(
            f"backbone {facts.name!r} has lazy parameters, whose shapes only a first call decides; "
            "declare their sizes"
        )
    return UsersBackbone(facts, module)


def _is_for_options(argument: inspect.Parameter) -> bool:
    """Whether an argument with a default is meant for the options, and is no setting of the user's own."""
    by_place = argument.kind in _BY_PLACE
    return by_place and (argument.name == "options" or "BuildOptions" in str(argument.annotation))


class UsersBackbone(Backbone):
    """The user's module, checked against the facts that its decorator declares."""

    def __init__(self, facts: BackboneFacts, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.promised = facts

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, tokens, d_model); `UserError` for any other shape."""
        tokens: Tensor = self.module(images)
        batch, _, height, width = images.shape
        if not isinstance(tokens, Tensor):
            raise UserError(
                f"backbone {self.promised.name!r} gave {type(tokens).__name__}; it must give a tensor "
                "(batch, tokens, d_model)"
            )
        self.promised.check_output(tuple(tokens.shape), batch, height, width)
        if tokens.device != images.device:
            raise self._differs(str(tokens.device), str(images.device))
        autocast = not images.is_meta and torch.is_autocast_enabled(images.device.type)
        if tokens.dtype != images.dtype and not autocast:
            raise self._differs(str(tokens.dtype), str(images.dtype))
        return tokens

    def _differs(self, given: str, expected: str) -> UserError:
        return UserError(
            f"backbone {self.promised.name!r} gave {given} tokens for {expected} images; they must be alike"
        )
