"""What a user declares of a module of their own, checked where it is declared and where it is built."""

from pathlib import Path

import pytest

from vlmprof.backbones import backbone, facts
from vlmprof.errors import UserError

MODULE = """
import torch
from vlmprof.backbones import backbone

@backbone({declared})
def mine():
    return torch.nn.Identity()
"""


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("stride=0, embed_dim=8", "stride must be a whole number from 1"),
        ("stride=16", "embed_dim"),
        ("stride=16, embed_dim=-1", "embed_dim must be"),
        ("stride=16, embed_dim=10**9", "embed_dim must be"),
        ("stride=16, embed_dim='8'", "embed_dim must be"),
        ("stride=1.5, embed_dim=8", "stride must be"),
        ("stride=16, embed_dim=8, multiple=0", "multiple must be"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str, said: str, request: pytest.FixtureRequest
) -> None:
    module = f"declared_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(MODULE.format(declared=declared))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as problem:
        facts(f"{module}:mine")
    assert "\n" not in str(problem.value)


def test_a_module_that_fails_while_it_is_imported_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_encoder.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="ZeroDivisionError: division by zero"):
        facts("broken_encoder:mine")


def test_sizes_that_can_be_are_kept() -> None:
    def made() -> None:
        return None

    known = vars(backbone(embed_dim=8, stride=16, multiple=32)(made))["facts"]
    assert (known.embed_dim, known.stride, known.multiple, known.min_size) == (8, 16, 32, 32)
