"""What is known of backbones without building them, and how they are named and built."""

import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vlmprof.backbones import create_backbone, facts, names
from vlmprof.errors import UserError

BUILT_BY_US = [
    name
    for name in names()
    if facts(name).module.rsplit(".", 1)[-1] in ("vit", "vitdet", "vmamba", "mambavision", "vit_adapter")
]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", BUILT_BY_US)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert count(create_backbone(name, classifier=True, device="meta")) == facts(name).parameters


@pytest.mark.parametrize(
    ("name", "height", "width", "tokens"),
    [
        ("vit-s", 224, 224, 196),
        ("vit-b", 512, 512, 1024),
        ("vmamba-t", 224, 224, 196),
        ("vmamba-s", 512, 512, 1024),
        ("vmamba-s", 800, 1333, 4200),
        ("vmamba-b", 37, 101, 21),
    ],
)
def test_token_counts_of_the_study(name: str, height: int, width: int, tokens: int) -> None:
    assert facts(name).num_tokens(height, width) == tokens


def test_embedding_and_stride_follow_the_level() -> None:
    assert [facts("vmamba-b", level).embed_dim for level in (1, 2, 3, 4)] == [128, 256, 512, 1024]
    assert [facts("vmamba-b", level).stride for level in (1, 2, 3, 4)] == [4, 8, 16, 32]
    assert facts("vit-b", 2) == facts("vit-b", 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: facts("vmanba-t"), "vmamba-t"),
        (lambda: facts("vmamba-t", 5), "levels 1 to 4"),
        (lambda: facts("no_such_module:build"), "no_such_module"),
        (lambda: facts("textwrap:no_such_function"), "no_such_function"),
        (lambda: facts("textwrap:dedent"), "@vlmprof.backbones.backbone"),
        (lambda: create_backbone("vit-s", image_size=(224, 230)), "224x224 or 240x224"),
        (lambda: create_backbone("vit-s", levels="some"), "through-tap"),
        (lambda: create_backbone("vmamba-t", kernels="cuda"), "triton"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_gets_one_clear_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError) as problem:
        call()
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_users_own_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_encoder.py").write_text(
        textwrap.dedent(
            """
            import torch
            from vlmprof.backbones import backbone

            class Patches(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = torch.nn.Conv2d(3, 48, 32, stride=32)
                def forward(self, images):
                    return self.conv(images).flatten(2).transpose(1, 2)

            @backbone(embed_dim=48, stride=32, multiple=32)
            def patches():
                return Patches()
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    known = facts("my_encoder:patches")
    assert (known.embed_dim, known.num_tokens(64, 96)) == (48, 6)
    assert not known.accepts(64, 90)
    encoder = create_backbone("my_encoder:patches", image_size=(64, 96), dtype=torch.bfloat16)
    tokens = encoder(torch.randn(2, 3, 64, 96, dtype=torch.bfloat16))
    assert tokens.shape == (2, 6, 48)
    assert tokens.dtype == torch.bfloat16
    assert tokens.isfinite().all()

    (tmp_path / "wrong_encoder.py").write_text(
        "import torch\nfrom vlmprof.backbones import backbone\n"
        "@backbone(embed_dim=3, stride=1)\ndef wrong():\n    return torch.nn.Identity()\n"
    )
    with pytest.raises(UserError, match=r"gave \(2, 3, 4, 4\).*promise.*\(2, 16, 3\)"):
        create_backbone("wrong_encoder:wrong")(torch.zeros(2, 3, 4, 4))


def test_facts_load_no_torch() -> None:
    code = """if True:
        import sys
        from vlmprof.backbones import facts, names
        from vlmprof.vlm import connector_catalog, llm_catalog
        for catalog in (facts, names), (llm_catalog.facts, llm_catalog.names):
            assert [catalog[0](name).name for name in catalog[1]()] == catalog[1]()
        connector_catalog.facts("mlp2")
        assert not {"torch", "transformers"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_depend_on_the_seed_and_the_name_only() -> None:
    cut, whole = create_backbone("vmamba-t"), create_backbone("vmamba-t", levels="all")
    other = create_backbone("vmamba-t", seed=1)
    weights = whole.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in cut.state_dict().items())
    name = "layers.0.blocks.0.mlp.fc1.weight"
    assert not torch.equal(other.get_parameter(name), cut.get_parameter(name))
    images = torch.randn(1, 3, 45, 70)
    assert torch.equal(cut(images), whole(images))


@pytest.mark.parametrize("name", ["vit-t", "vmamba-t"])
def test_random_weights_stay_sane_in_bfloat16(name: str) -> None:
    encoder = create_backbone(name, dtype=torch.bfloat16, levels="all")
    tokens = encoder(torch.randn(2, 3, 64, 96, dtype=torch.bfloat16))
    assert tokens.dtype == torch.bfloat16
    assert tokens.isfinite().all()
    assert 0.1 < tokens.float().std() < 100
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed here")
@pytest.mark.parametrize("name", ["maxvit-t", "timm:resnet50"])
def test_a_missing_extra_is_named(name: str) -> None:
    with pytest.raises(UserError, match=r"pip install 'vlmprof\[timm\]'"):
        create_backbone(name)
