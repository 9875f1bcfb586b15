"""The smallest of every family at every level, odd sizes where it takes them: facts beside a forward pass."""

import importlib.util
from collections.abc import Sequence

import pytest

from tests.helpers.encoders import feature_maps
from tests.helpers.golden import golden_image
from vlmprof.backbones import create_backbone, facts, names

SMALLEST = {facts(name).family: name for name in reversed(names())}


def levels_of(name: str) -> Sequence[int]:
    return range(1, len(facts(name).level_dims) + 1) or (3,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "level"), [(name, level) for name in SMALLEST.values() for level in levels_of(name)]
)
def test_tokens_and_feature_maps_are_the_ones_foretold(name: str, level: int) -> None:
    known = facts(name, level)
    if known.extra and importlib.util.find_spec(known.extra) is None:
        pytest.skip(f"the optional extra `{known.extra}` is not installed")
    size = known.padded(45, 71)
    encoder = create_backbone(name, level=level, levels="all", image_size=size)
    images = golden_image(*size)
    assert encoder(images).shape == (1, known.num_tokens(*size), known.embed_dim)
    if known.level_dims:
        maps = feature_maps(encoder, images)
        expected = [known.at_level(i) for i in levels_of(name)]
        assert [tuple(m.shape[1:]) for m in maps] == [(at.embed_dim, *at.grid(*size)) for at in expected]
