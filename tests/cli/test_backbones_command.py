"""`vlmprof backbones` and `backbones NAME`."""

import pytest
from typer.testing import CliRunner

from vlmprof.backbones import facts, names
from vlmprof.cli.app import app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["backbones", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_list_names_every_backbone_with_its_tokens() -> None:
    listed = run("--resolution", "1333x800")
    for name in names():
        line = next(line for line in listed.splitlines() if f" {name} " in f" {line}")
        known = facts(name)
        assert f"{known.parameters:,}" in line
        height, width = known.padded(800, 1333)
        assert f" {known.num_tokens(height, width):,} " in line
        assert (f"({width}x{height})" in line) != known.accepts(800, 1333)
    assert "module:function" in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vmamba-t", "--resolution", "1333x800"), ["4,200 of 384", "384 channels x 50 x 84", "11,835,072"]),
        (("dinov2-s",), ["518 x 518 pixels, padded", "1,369 of 384"]),
        (("vit-b",), ["1,024 of 768", "86,567,656", "GFLOP"]),
        (("swin-t", "--level", "2", "--levels", "all"), ["level 2 of 4, all", "4,096 of 192"]),
    ],
)
def test_one_backbone_is_shown(arguments: tuple[str, ...], said: list[str]) -> None:
    shown = run(*arguments)
    for words in said:
        assert words in shown
