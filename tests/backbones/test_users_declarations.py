"""What a user declares of a module of their own, checked where it is declared and where it is built."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from vlmprof.backbones import backbone, create_backbone, facts
from vlmprof.cli.app import app
from vlmprof.cost.count import count
from vlmprof.errors import UserError
from vlmprof.vlm.workload import Workload

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


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def small(:\n", "line 1: SyntaxError: "),
        ("import math\nprint(maths)\n", "line 2: NameError: name 'maths' is not defined"),
        ("import math\n\nmath.nothing\n", "line 3: AttributeError: module 'math' has no attribute 'nothing'"),
        ("len(1)\n", "line 1: TypeError: object of type 'int' has no len()"),
        ("import not_installed_anywhere\n", "line 1: ModuleNotFoundError: No module named 'not_installed"),
        (
            MODULE.format(declared="stride=16"),
            "line 5: TypeError: backbone() missing 1 required",
        ),
    ],
)
def test_an_error_of_the_module_is_shown_with_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str, request: pytest.FixtureRequest
) -> None:
    module = f"wrong_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as problem:
        facts(f"{module}:mine")
    assert str(problem.value).startswith(f"backbone '{module}:mine': {module}.py, {said}")
    assert "\n" not in str(problem.value)


def test_an_error_of_the_factory_is_shown_with_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MODULE.format(declared="stride=16, embed_dim=8").replace("nn.Identity", "nn.Identify")
    (tmp_path / "wrong_factory.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    said = "'wrong_factory:mine': wrong_factory.py, line 7: AttributeError: module 'torch.nn'"
    with pytest.raises(UserError, match=said):
        create_backbone("wrong_factory:mine")


def test_sizes_that_can_be_are_kept() -> None:
    def made() -> None:
        return None

    known = vars(backbone(embed_dim=8, stride=16, multiple=32)(made))["facts"]
    assert (known.embed_dim, known.stride, known.multiple, known.min_size) == (8, 16, 32, 32)


OUTPUTS = """
import torch
from vlmprof.backbones import backbone

class Patches(torch.nn.Conv2d):
    def __init__(self, change):
        super().__init__(3, 16, kernel_size=32, stride=32)
        self.change = change

    def forward(self, images):
        return self.change(super().forward(images).flatten(2).transpose(1, 2))

def declared(name, change, embed_dim=16, stride=32):
    def factory():
        return Patches(change)
    globals()[name] = backbone(embed_dim=embed_dim, stride=stride)(factory)

declared("good", lambda tokens: tokens)
declared("narrower", lambda tokens: tokens, embed_dim=8)
declared("finer", lambda tokens: tokens, stride=16)
declared("a_tuple", lambda tokens: (tokens,))
declared("a_dict", lambda tokens: {"last_hidden_state": tokens})
declared("a_map", lambda tokens: tokens.transpose(1, 2).unflatten(2, (2, 3)))
declared("a_class_token", lambda tokens: torch.cat((tokens[:, :1], tokens), dim=1))

@backbone(embed_dim=16, stride=32)
def fails():
    raise RuntimeError("no file")

@backbone(embed_dim=16, stride=32)
def takes_two(options, depth):
    return Patches(lambda tokens: tokens)

@backbone(embed_dim=16, stride=32)
def no_file():
    return open("nothing.pth")

@backbone(embed_dim=16, stride=32)
def exits():
    raise SystemExit(2)

@backbone(embed_dim=16, stride=32)
def lazy():
    return torch.nn.LazyConv2d(16, 32, 32)

@backbone(embed_dim=16, stride=32)
def has_settings(pretrained=False, *, depth=3):
    return Patches(lambda tokens: tokens if pretrained is False and depth == 3 else None)

@backbone(embed_dim=16, stride=32)
def may_take_options(options=None):
    return Patches(lambda tokens: tokens if options.levels == "through-tap" else None)

declared("doubled", lambda tokens: tokens.double())
declared("elsewhere", lambda tokens: tokens.to("cpu" if tokens.is_meta else "meta"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("narrower", "gave (1, 6, 16) for an image of 96x64; its facts promise (batch, tokens, d_model)"),
        ("finer", "gave (1, 6, 16) for an image of 96x64; its facts promise"),
        ("a_tuple", "gave tuple; it must give a tensor"),
        ("a_dict", "gave dict; it must give a tensor"),
        ("a_map", "gave (1, 16, 2, 3)"),
        ("a_class_token", "gave (1, 7, 16)"),
        ("fails", "cannot be built (RuntimeError: no file)"),
        ("takes_two", "takes 2 arguments; it may take BuildOptions alone"),
        ("no_file", "FileNotFoundError: [Errno 2] No such file or directory: 'nothing.pth'"),
        ("exits", "SystemExit: 2"),
        ("lazy", "has lazy parameters"),
        ("doubled", "gave torch.float64 tokens for torch."),
    ],
)  # fmt: skip
def test_a_module_that_breaks_its_promise_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "outputs_of_all_kinds.py").write_text(OUTPUTS)
    monkeypatch.chdir(tmp_path)
    name = f"outputs_of_all_kinds:{name}"
    shown = CliRunner().invoke(app, ["backbones", name, "--resolution", "96x64"])
    assert isinstance(shown.exception, UserError)
    assert said in str(shown.exception)
    assert "\n" not in str(shown.exception)
    with pytest.raises((UserError, RuntimeError)) as run:
        create_backbone(name)(torch.zeros(1, 3, 64, 96))
    assert said.partition(" (Run")[0].removeprefix("cannot be built") in str(run.value)
    with pytest.raises(UserError) as counted:
        count(Workload(name, "llama-23m", 64, 96))
    assert said.partition(" (")[0].removeprefix("cannot be built") in str(counted.value)
    assert "\n" not in str(counted.value)
    for good in ("good", "has_settings", "may_take_options"):
        encoder = create_backbone(f"outputs_of_all_kinds:{good}")
        assert encoder(torch.zeros(1, 3, 64, 96)).shape == (1, 6, 16)
    with pytest.raises(UserError, match="gave meta tokens for cpu images"):
        create_backbone("outputs_of_all_kinds:elsewhere")(torch.zeros(1, 3, 64, 96))
