"""Vision backbones behind one small interface. Importing this loads no torch; building one does.

A backbone is an `nn.Module` (`vlmprof.backbones.interface.Backbone`) with

- `forward(images) -> tokens`: (batch, 3, height, width) to (batch, tokens, d_model);
- `feature_maps(images) -> list`, hierarchical families only: one (batch, channels, height, width) per
  feature level, before down-sampling;
- `facts`: what is known of it without building it (`vlmprof.backbones.facts(name)`);
- `backends`: which implementation of each replaceable part runs, such as `{"ss2d": "triton"}`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, get_args

from vlmprof.activity import say
from vlmprof.backbones import facts_cache
from vlmprof.backbones.catalog import facts, names
from vlmprof.backbones.facts import DEFAULT_LEVEL, BackboneFacts, BuildOptions
from vlmprof.errors import UserError, unknown
from vlmprof.settings import KernelBackend, LevelsRun

if TYPE_CHECKING:
    import torch

    from vlmprof.backbones.interface import Backbone

__all__ = ["BackboneFacts", "BuildOptions", "backbone", "check_promise", "create_backbone", "facts", "names"]

LARGEST = 1 << 20
"""The largest size that can be declared; anything above is a typing error."""

Factory = TypeVar("Factory", bound=Callable[..., object])


def backbone(
    *,
    embed_dim: int,
    stride: int,
    family: str = "",
    size: str = "",
    min_size: int = 1,
    multiple: int = 1,
    parameters: int | None = None,
) -> Callable[[Factory], Factory]:
    """Decorate a factory of your own, to be named on the command line as `module:function`.

    The factory takes nothing, or a `BuildOptions`, and returns an `nn.Module` whose
    `forward((batch, 3, height, width))` gives (batch, tokens, embed_dim), with one token per
    `stride` × `stride` pixels. It is called with the target device and dtype as torch's defaults.
    Sides must be at least `min_size` and a multiple of `multiple` pixels; `parameters` are those of the
    published model, where there is one. Raises `UserError` for sizes that cannot be.

    >>> import torch
    >>> class Patches(torch.nn.Conv2d):
    ...     def forward(self, images):
    ...         return super().forward(images).flatten(2).transpose(1, 2)
    >>> @backbone(embed_dim=48, stride=32, multiple=32)
    ... def patches():
    ...     return Patches(3, 48, kernel_size=32, stride=32)
    >>> patches.facts.num_tokens(64, 96), patches.facts.accepts(64, 90)
    (6, False)
    """

    def decorate(factory: Factory) -> Factory:
        name = getattr(factory, "__name__", "backbone")
        declared = {"embed_dim": embed_dim, "stride": stride, "min_size": min_size, "multiple": multiple}
        for what, value in declared.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
                raise UserError(
                    f"backbone {name!r}: {what} must be a whole number from 1 to {LARGEST:,}, not {value!r}"
                )
        factory.facts = BackboneFacts(  # type: ignore[attr-defined]
            name=name,
            family=family or name,
            size=size,
            embed_dim=embed_dim,
            stride=stride,
            min_size=max(min_size, multiple),
            multiple=multiple,
            parameters=parameters,
            module="vlmprof.backbones.users",
        )
        return factory

    return decorate


def create_backbone(
    name: str,
    *,
    level: int = DEFAULT_LEVEL,
    levels: str = "through-tap",
    image_size: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    seed: int = 0,
    kernels: KernelBackend = "auto",
    classifier: bool = False,
    weights: str | None = None,
) -> Backbone:
    """Build a frozen backbone in eval mode, on `device` in `dtype` (float32 by default).

    Its weights are random unless `weights` names a checkpoint file, or is `pretrained` for the official
    ones, which are downloaded when they are not in the cache. `level` is the feature level that is tapped,
    counted from 1; `levels`, `kernels` and `classifier` are as in `BuildOptions`. With `image_size`,
    (height, width) in pixels, the backbone is prepared for images of that size.

    Raises `UserError` for an unknown name, level or option, for an image size that the backbone cannot
    encode and for weights that do not fit, and `RuntimeError` for a kernel backend that cannot run on
    `device`.

    >>> import torch
    >>> encoder = create_backbone("vit-t", image_size=(64, 96))
    >>> encoder(torch.zeros(2, 3, 64, 96)).shape  # (batch, tokens, d_model)
    torch.Size([2, 24, 192])
    """
    import torch

    from vlmprof.backbones.random_weights import fill, uninitialised
    from vlmprof.backbones.weights import load_weights

    known = facts(name, level)
    for what, choice, choices in (
        ("levels", levels, get_args(LevelsRun)),
        ("kernel backend", kernels, get_args(KernelBackend)),
    ):
        if choice not in choices:
            raise unknown(what, choice, choices)
    if image_size is not None:
        known.check_size(*image_size)
    options = BuildOptions(image_size=image_size, levels=levels, kernels=kernels, classifier=classifier)
    # parameters made in inference mode keep no version, so kernels could not keep what they make of them
    with torch.inference_mode(False):
        with uninitialised(device, dtype or torch.float32):
            encoder: Backbone = importlib.import_module(known.module).build(known, options)
        # some of transformers' parameters are made on the host whatever the default device is
        encoder.to(device)
        fill(encoder, seed)
        encoder.facts = known
        if weights is not None:
            load_weights(encoder, weights)
        if image_size is not None:
            encoder.prepare(*image_size)
    return encoder


def check_promise(name: str, level: int, levels: str, height: int, width: int) -> None:
    """Compare the facts of a backbone with what it gives, built without data, for this size in pixels.

    Raises `UserError` in one line for a difference, and for a model that does not run. Loads torch, unless
    the comparison is in the cache of facts.
    """
    at = (levels, level, height, width)
    if facts_cache.is_checked(name, at):
        return
    say(f"building {name} on the meta device for {width}x{height}")
    import torch

    from vlmprof.backbones.dry_run import images, reason

    known = facts(name, level)
    built_for = (height, width) if name.startswith("timm:") else None
    try:
        known.check_size(height, width)
        with torch.inference_mode():
            # some encoders keep what they made of the last image's size
            encoder = copy.deepcopy(_without_data(name, repr(known.config), level, levels, built_for))
            encoder.prepare(height, width)
            tokens = encoder(images(height, width))
    except UserError:
        raise
    except Exception as problem:
        raise UserError(f"backbone {name!r} cannot encode {width}x{height} ({reason(problem)})") from problem
    known.check_output(tuple(tokens.shape), 1, height, width)
    facts_cache.keep_checked(name, at)


@lru_cache(maxsize=4)
def _without_data(
    name: str, config: str, level: int, levels: str, image_size: tuple[int, int] | None
) -> Backbone:
    """Build an encoder on `meta`; `config` tells apart what a file held at different times."""
    return create_backbone(name, level=level, levels=levels, image_size=image_size, device="meta")
