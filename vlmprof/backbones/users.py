"""A backbone from the user's own file, named `module:function`."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from vlmprof.backbones.catalog import users_factory
from vlmprof.backbones.facts import BackboneFacts, BuildOptions
from vlmprof.backbones.interface import Backbone
from vlmprof.errors import UserError, error_line


def build(facts: BackboneFacts, options: BuildOptions) -> Backbone:
    """Call the user's factory, with the options if it takes an argument."""
    factory = users_factory(facts.name)
    inputs = inspect.signature(factory).parameters.values()
    needed = [one for one in inputs if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if len(needed) > 1:
        raise UserError(
            f"backbone {facts.name!r} takes {len(needed)} arguments; it may take BuildOptions alone"
        )
    try:
        module = factory(options) if inputs else factory()
    except (AttributeError, ImportError, NameError, SyntaxError, TypeError) as problem:
        raise UserError(f"backbone {facts.name!r}: {error_line(problem)}") from problem
    if not isinstance(module, nn.Module):
        raise UserError(
            f"backbone {facts.name!r} returned a {type(module).__name__}; it must return a torch.nn.Module"
        )
    return UsersBackbone(facts, module)


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
        return tokens
