"""Facts of other libraries' encoders that are kept on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlmprof.backbones import catalog, facts, facts_cache
from vlmprof.errors import UserError
from vlmprof.plan import make_plan
from vlmprof.spec import build_spec

pytestmark = pytest.mark.slow

CONFIG = {
    "model_type": "swin", "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "image_size": 64,
    "window_size": 4,
}  # fmt: skip


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(facts_cache.VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return f"hf:{tmp_path}"


def forbid_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "LIBRARIES", {"hf": "no_such_module", "timm": "no_such_module"})


def plan_of(name: str, resolution: str) -> list[int | None]:
    axes = {"backbone": [name], "resolution": [resolution], "llm": ["llama-23m"], "level": [1, 2]}
    return [cell.visual_tokens for cell in make_plan(build_spec({}, axes, "test"))]


def test_kept_facts_and_plans_are_those_that_were_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, planned = facts(name, 2), plan_of(name, "64x96")
    assert planned == [16 * 24, 8 * 12]
    forbid_other_libraries(monkeypatch)
    assert facts(name, 2) == found
    assert plan_of(name, "64x96") == planned
    with pytest.raises(ModuleNotFoundError):
        facts("timm:resnet18")


def test_another_configuration_at_the_same_place_is_another_encoder(name: str, tmp_path: Path) -> None:
    assert facts(name, 1).embed_dim == 16
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "embed_dim": 32}))
    assert facts(name, 1).embed_dim == 32


@pytest.mark.parametrize("content", ["", "[]", "{", '{"facts": {"name": 3}, "checked": []}'])
def test_a_damaged_entry_is_found_out_again(name: str, tmp_path: Path, content: str) -> None:
    found = facts(name, 1)
    (entry,) = (tmp_path / "cache").glob("*.json")
    entry.write_text(content)
    assert facts(name, 1) == found
    assert json.loads(entry.read_text())["facts"]["family"] == "swin"


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv(facts_cache.VARIABLE, str(tmp_path / "a_file"))
    assert facts(name, 1).embed_dim == 16


def test_a_user_without_a_home_has_no_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in (facts_cache.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert facts_cache.folder() is None
    assert facts(name, 1).embed_dim == 16


def test_a_refusal_is_not_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for _ in range(2):
        with pytest.raises(UserError, match="no image encoder"):
            facts(name)
    assert not list(tmp_path.glob("cache/*"))


def test_a_plan_from_the_cache_loads_no_torch(name: str) -> None:
    plan_of(name, "64x96")
    code = f"""if True:
        import sys
        from vlmprof.plan import make_plan
        from vlmprof.spec import build_spec
        axes = {{"backbone": [{name!r}], "resolution": ["64x96"], "llm": ["llama-23m"], "level": [1, 2]}}
        make_plan(build_spec({{}}, axes, "test"))
        assert not {{"torch", "transformers"}} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", code], check=True)
