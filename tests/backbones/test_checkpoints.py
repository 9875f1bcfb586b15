"""Weights from files: official forms load strictly, wrong and malicious ones get one line."""

import argparse
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from tests.helpers.encoders import feature_maps
from tests.helpers.golden import golden_image
from vlmprof.backbones import checkpoints, create_backbone
from vlmprof.backbones.interface import Backbone
from vlmprof.backbones.vitdet import official_names
from vlmprof.errors import UserError


@pytest.fixture(scope="module")
def vmamba() -> Backbone:
    """A whole VMamba-T whose weights differ from any that a test builds."""
    return create_backbone("vmamba-t", classifier=True, seed=7)


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as problem:
        call()
    assert "\n" not in str(problem.value)
    return str(problem.value)


def old_names(name: str) -> str:
    """What the first release called the parameters."""
    for new, old in (
        ("patch_embed.0.", "patch_embed.proj."),
        ("patch_embed.2.", "patch_embed.norm."),
        ("classifier.", ""),
        (".op.", ".self_attention."),
    ):
        name = name.replace(new, old)
    return name.replace(".norm.", ".ln_1.") if ".blocks." in name else name


def test_classification_detection_and_segmentation_files(vmamba: Backbone, tmp_path: Path) -> None:
    images = golden_image(64, 96)
    expected = feature_maps(vmamba, images)[2].permute(0, 2, 3, 1).flatten(1, 2)
    state = vmamba.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    norms = {
        f"outnorm{i}.{leaf}": torch.full((96 << i,), 2.0) for i in range(4) for leaf in ("weight", "bias")
    }
    detector = {f"backbone.{name}": tensor for name, tensor in {**trunk, **norms}.items()}
    detector["roi_head.fc.weight"] = torch.zeros(3, 3)
    data_parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    normed = torch.nn.functional.layer_norm(expected, (384,))
    for content, tokens in (
        ({"model": state, "epoch": 3}, normed),
        (data_parallel, normed),
        ({"state_dict": detector, "meta": {}}, 2 * normed + 2),
    ):
        encoder = create_backbone("vmamba-t", weights=save(tmp_path / "weights.pth", content))
        torch.testing.assert_close(encoder(images), tokens, rtol=1e-4, atol=1e-4)


def test_names_and_shapes_of_other_releases(tmp_path: Path) -> None:
    first = create_backbone("vmamba-t-v0", classifier=True, seed=7)
    old = {old_names(name): tensor for name, tensor in first.state_dict().items()}
    again = create_backbone("vmamba-t-v0", classifier=True, weights=save(tmp_path / "v0.pth", {"model": old}))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    second = create_backbone("vmamba-t", seed=7)
    grouped = {
        name.replace("_proj_weight", "_proj.weight").replace(
            "_projs_weight", "_projs.weight"
        ): tensor.flatten(0, 1) if name.endswith(("x_proj_weight", "dt_projs_weight")) else tensor
        for name, tensor in second.state_dict().items()
    }
    again = create_backbone("vmamba-t", weights=save(tmp_path / "grouped.pth", grouped))
    assert torch.equal(again(golden_image(32, 32)), second(golden_image(32, 32)))


@pytest.mark.parametrize("name", ["vit-t", "mambavision-t"])
def test_a_whole_classifier_fills_a_backbone(name: str, tmp_path: Path) -> None:
    whole = create_backbone(name, levels="all", classifier=True, seed=7)
    state = {key: tensor for key, tensor in whole.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "model.safetensors")
    encoder = create_backbone(name, weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(encoder(golden_image(64, 64)), whole(golden_image(64, 64)))


@pytest.mark.slow
def test_a_detector_fills_vitdet(tmp_path: Path) -> None:
    names = official_names(list(create_backbone("vitdet-b", device="meta").state_dict()))
    shapes = create_backbone("vitdet-b", device="meta").state_dict()
    state = {f"backbone.net.{official}": torch.zeros(shapes[name].shape) for name, official in names.items()}
    state["backbone.simfp_2.0.weight"] = torch.zeros(2)
    encoder = create_backbone("vitdet-b", weights=save(tmp_path / "detector.pth", state))
    assert not encoder(golden_image(32, 32)).any()


def test_each_parameter_keeps_its_dtype(vmamba: Backbone, tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", vmamba.state_dict())
    encoder = create_backbone("vmamba-t", dtype=torch.bfloat16, weights=path)
    mixer = "layers.1.blocks.0.op"
    assert encoder.get_parameter(f"{mixer}.in_proj.weight").dtype == torch.bfloat16
    assert torch.equal(encoder.get_parameter(f"{mixer}.A_logs"), vmamba.get_parameter(f"{mixer}.A_logs"))


def test_what_official_files_keep_beside_their_tensors(tmp_path: Path) -> None:
    """Training configurations and logs of classes that are not installed here."""
    stub_missing_packages = {
        "yacs.config": ("CfgNode", dict),
        "mmengine.logging.history_buffer": ("HistoryBuffer", object),
    }
    made = []
    for module_name, (class_name, base) in stub_missing_packages.items():
        for i in range(1, module_name.count(".") + 2):
            part = ".".join(module_name.split(".")[:i])
            sys.modules[part] = types.ModuleType(part)
            made.append(part)
        stranger = type(class_name, (base,), {"__module__": module_name})
        setattr(sys.modules[module_name], class_name, stranger)
    config = sys.modules["yacs.config"].CfgNode()
    config["MODEL"] = sys.modules["yacs.config"].CfgNode()
    log = sys.modules["mmengine.logging.history_buffer"].HistoryBuffer()
    log.values = np.arange(3.0)
    content = {
        "model": {"weight": torch.ones(2)},
        "config": config,
        "args": argparse.Namespace(lr=0.1),
        "message_hub": {"loss": log},
        "max_accuracy": np.float64(82.6),
    }
    path = save(tmp_path / "official.pth", content)
    for part in made:
        del sys.modules[part]
    assert torch.equal(checkpoints.read(path)["weight"], torch.ones(2))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., int], tuple[list[str]]]:
        return subprocess.check_call, (["touch", str(self.path)],)


def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path) -> None:
    path = save(tmp_path / "evil.pth", {"model": {"weight": torch.ones(2)}, "x": Malicious(tmp_path / "ran")})
    said = refused(lambda: checkpoints.read(path))
    assert "check_call" in said
    assert "malicious" in said
    assert not (tmp_path / "ran").exists()
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"a": np.ones(2)}))
    assert "pickle" in refused(lambda: create_backbone("vitdet-b", weights=str(tmp_path / "weights.pkl")))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated"])
def test_a_damaged_file_gets_one_line(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {"weight": torch.ones(1000)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = {"empty": b"", "text": b"no weights, a web page", "truncated": path.read_bytes()[:2000]}
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[damage])
    said = refused(lambda: checkpoints.read(path))
    assert ("no file" if damage == "missing" else "truncated") in said
    assert path.name in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>404 Not Found</html>", "web page"),
    ],
)
def test_what_a_download_left_in_the_place_of_a_file_is_named(
    tmp_path: Path, content: bytes, said: str
) -> None:
    for name in ("weights.bin", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert said in refused(partial(checkpoints.read, tmp_path / name))


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x.pth", "x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    assert "there is no file" in refused(lambda: checkpoints.read(name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weight: weight.to(torch.int8), "torch.int8 instead of torch.float32"),
        (lambda weight: weight.to(torch.complex64), "torch.complex64 instead of torch.float32"),
        (lambda weight: weight.to_sparse(), "weight (copy_() between dense and sparse"),
        (lambda weight: weight.to("meta"), "weight (Cannot copy out of meta tensor"),
    ],
)
def test_tensors_of_another_kind_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    module = torch.nn.Linear(4, 4, bias=False)
    assert said in refused(lambda: checkpoints.load(module, {"weight": change(torch.ones(4, 4))}, "it"))
    checkpoints.load(module, {"weight": torch.ones(4, 4, dtype=torch.float8_e4m3fn)}, "it")
    assert torch.equal(module.weight, torch.ones(4, 4))


def test_weights_of_another_model_are_refused(vmamba: Backbone, tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", vmamba.state_dict())
    assert "missing" in refused(lambda: create_backbone("vit-t", weights=path))
    assert "unexpected" in refused(lambda: create_backbone("vit-t", weights=path))
    said = refused(lambda: create_backbone("vmamba-b", weights=path))
    assert "another shape" in said
    assert "instead of" in said
    assert "no state dict" in refused(
        lambda: create_backbone("vit-t", weights=save(tmp_path / "x.pth", {"model": 3}))
    )


def test_official_weights_that_are_bare_pickles_are_not_offered() -> None:
    assert "no official weights" in refused(lambda: create_backbone("vitdet-b", weights="pretrained"))


def test_official_weights_come_from_the_cache(
    vmamba: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fetch(url: str, path: Path) -> None:
        assert url == vmamba.facts.pretrained
        save(path, {"model": vmamba.state_dict()})

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    encoder = create_backbone("vmamba-t", weights="pretrained")
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    again = create_backbone("vmamba-t", weights="pretrained")
    assert torch.equal(encoder(golden_image(32, 32)), again(golden_image(32, 32)))


def test_without_network_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(url: str, path: Path) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    assert "no route" in refused(lambda: create_backbone("vmamba-t", weights="pretrained"))


def test_a_failure_of_the_hub_without_words_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", fail)
    line = refused(lambda: create_backbone("dinov2-s", weights="pretrained"))
    assert line == "weights: cannot load facebook/dinov2-small (OSError)"
