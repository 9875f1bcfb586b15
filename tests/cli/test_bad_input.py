"""Bad input of every kind: exit code 2, one line, nothing measured and nothing read that has no end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import only_line, vlmprof
from tests.helpers.synthetic_runs import cell, samples, write_run

SPEC = '[axes]\nbackbone = "vit-t"\nresolution = 64\nllm = "llama-23m"\n'
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--resolution", "224x00", "'224x00' is not a resolution; write 512"),
        ("--resolution", "0", "'0' is not a resolution"),
        ("--resolution", LONG, "is too large: a side has at most 1048576 pixels"),
        ("--seed", str(2**64), "seed: '18446744073709551616' is too large"),
        ("--seed", "-1", "seed: '-1' is not an integer of at least 0"),
        ("--batch-size", "1e9", "batch_size: '1e9' is not an integer of at least 1"),
        ("--batch-size", "1000000000", "is too large; the largest is 1048576"),
        ("--batch-size", "nan", "is not an integer"),
        ("--iterations", LONG, "is too large; the largest is 2147483647"),
        ("--memory-limit", "24", "memory_limit: '24' lacks a unit; write it like 24GiB"),
        ("--memory-limit", f"{LONG}GiB", "is more than any device has"),
        ("--cell-timeout", f"{LONG}h", "is longer than a year"),
        ("--budget", "5", "budget: '5' lacks a unit; write it like 200ms, 90s or 10min"),
        ("--target", "nan", "is not a fraction between 0 and 1"),
        ("--llm", "/dev/zero", "cannot read /dev/zero (not a regular file)"),
        ("--llm", "/proc/version", "is not JSON"),  # a file of size 0, like others that have no end
        ("--llm", "pipe/", "cannot read pipe (not a regular file)"),
        ("--llm", "x" * 300 + ".json", "File name too long"),
        pytest.param("--backbone", "hf:pipe", "not a regular file", marks=pytest.mark.slow),
        ("--image", "pipe", "image pipe cannot be read: not a regular file"),
        ("--image", "folder", "image folder cannot be read"),
        ("--weights", "/dev/zero", "weights: /dev/zero is not a regular file"),
        ("--weights", "~nobody-here/x", "weights: there is no file ~nobody-here/x"),
        ("--weights", "nothing\0", "weights: there is no file nothing"),
        ("--batch-size", "0", "vlmprof: batch_size: '0' is not"),  # not of the file, which has none
        ("--batch-size", "-" + "9" * 40, "is not an integer of at least 1"),
        ("--level", "9" * 20, "is too large; the largest is 2147483647"),
    ],
)
def test_an_option_that_means_nothing(tmp_path: Path, option: str, value: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.toml").write_text(SPEC)
    ended = vlmprof(tmp_path, "plan", "mine.toml", option, value)
    assert ended.returncode == 2
    assert said in only_line(ended)
    assert len(only_line(ended)) < 1100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = ""\n' + SPEC, "name: '' cannot name a folder"),
        ('name = "../elsewhere"\n' + SPEC, "name: '../elsewhere' cannot name a folder"),
        ('name = ".."\n' + SPEC, "cannot name a folder"),
        ("name = 3\n" + SPEC, "name: 3 cannot name a folder"),
        (SPEC + f"level = {LONG}", "is not valid TOML: Exceeds the limit"),
        (SPEC + f"level = {'[' * 3000}{']' * 3000}", "is not valid TOML: nested too deeply"),
        (SPEC + "level = nan", "level: nan is not an integer"),
        (SPEC + "mode = {eager = true}", "mode: {'eager': True} is not one of eager"),
        (SPEC + "batch_size = [[1]]", "batch_size: [1] is not an integer"),
        ("axes = 1", "axes must be a table"),
        ("\0", "is not valid TOML"),
    ],
)
def test_a_specification_that_means_nothing(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    ended = vlmprof(tmp_path, "plan", "mine.toml")
    assert ended.returncode == 2
    assert said in only_line(ended)


@pytest.mark.parametrize("source", ["pipe", "/dev/zero", "x" * 300])
def test_a_specification_that_is_no_file(tmp_path: Path, source: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = vlmprof(tmp_path, "plan", source)
    assert ended.returncode == 2
    assert only_line(ended).startswith("vlmprof: ")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "with.toml").write_text(SPEC)
    (tmp_path / "mark.toml").write_bytes(b"\xef\xbb\xbf" + SPEC.replace("\n", "\r\n").encode())
    plain, marked = (vlmprof(tmp_path, "plan", f"{name}.toml") for name in ("with", "mark"))
    assert (marked.returncode, marked.stdout) == (0, plain.stdout.replace("with:", "mark:"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [cell("vit-t", side) for side in (224, 512)]
    write_run(tmp_path / "good", rows, samples(rows))
    return write_run(tmp_path / "bad", rows, samples(rows))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"spec": null}', "run.json cannot be read: spec is null, not an object"),
        ('{"spec": {"fixed": []}}', "spec.fixed is [], not an object"),
        ('{"environment": "mine"}', 'environment is "mine", not an object'),
        ("[]", "run.json cannot be read: not an object"),
        ("[" * 100_000, "run.json cannot be read: nested too deeply"),
        ("{", "run.json cannot be read"),
    ],
)
def test_a_manifest_that_means_nothing(run: Path, manifest: str, said: str) -> None:
    (run / "run.json").write_text(manifest)
    for words in (("compare", "good", "bad"), ("plot", "bad"), ("report", "bad"), ("export", "bad")):
        ended = vlmprof(run.parent, *words)
        assert ended.returncode == 2
        assert said in only_line(ended)


@pytest.mark.parametrize(
    "text", ["null", "[]", "{", '{"end_to_end_s": "fast"}', '{"end_to_end_s": [null, [1], true]}',
             '{"end_to_end_s": [1e400, NaN]}', '{"end_to_end_s": [1e300, 1e-300, 1]}', "[" * 100_000]
)  # fmt: skip
def test_samples_of_wrong_types_are_as_if_absent(run: Path, text: str) -> None:
    for path in (run / "samples").iterdir():
        path.write_text(text)
    ended = vlmprof(run.parent, "compare", "good", "bad", "--json")
    shutil.rmtree(run / "samples")
    without = vlmprof(run.parent, "compare", "good", "bad", "--json")
    assert (ended.stdout, ended.stderr) == (without.stdout, without.stderr)
    assert ended.returncode == 0


@pytest.mark.parametrize("column", ["height_px", "backbone"])
def test_a_row_of_wrong_types_is_counted_and_left_out(run: Path, column: str) -> None:
    first, second = (json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines())
    first[column] = ""
    (run / "rows.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    ended = vlmprof(run.parent, "recommend", "bad", "--format", "svg", "--json")
    assert ended.returncode == 0
    assert [row["resolution"] for row in json.loads(ended.stdout)["tables"]["recommended"]] == ["512"]
    assert "1 of 2 lines could not be read" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recommend", "good", "--price-per-hour", "0"), "--price-per-hour 0 is not a price"),
        (("recommend", "good", "--price-per-hour", "inf"), "--price-per-hour inf is not a price"),
        (("recommend", "good", "--scores", "/dev/zero"), "/dev/zero cannot be read: not a regular file"),
        (("recommend", "good", "--max-memory", "24"), "'24' lacks a unit"),
        (("recommend", "good", "--width", "wide"), "unknown figure width 'wide'"),
        (("recommend", "good", "--format", "gif"), "unknown figure format 'gif'"),
        (("recommend", "good", "--max-ttft", "5"), "--max-ttft: '5' lacks a unit; write it like 200ms"),
        (("recommend", "good", "--max-energy", "5"), "--max-energy: '5' lacks a unit; write it like 20J"),
        (("recommend", "quick", "--gpu", "l4", "--max-energy", "5J"), "estimates have no energy"),
        (("recommend", "quick", "--gpu", "l4", "--scores", "kuo2026", "--score", "x"), "unknown score 'x'"),
        (("recommend", "good", "--score", "overall"), "--score needs --scores"),
        (("kernels", "verify", "--row-timeout", "60"), "--row-timeout: '60' lacks a unit"),
        (("compare", "good", "bad", "--margin", "nan"), "--margin 'nan' is not a percentage"),
        (("compare", "good", "x" * 300), "is not a run folder"),
        (("frontier", "quick", "--memory", "1GiB", "--largest", LONG[:19]), "--largest from 1 to 65536"),
        (("frontier", "quick", "--memory", "1GiB", "--step", "0"), "--step must be at least 1"),
        (("sweep", "quick", "--out", "good/run.json"), "good/run.json is not a folder"),
        (("sweep", "quick", "--out", "x" * 300), "cannot write the run folder"),
        (("plan", "quick", "--tiling", "anyres", "--max-tiles", "99999"), "max_tiles: '99999' is too large"),
        (("sweep", "quick", "--repeat", LONG[:19]), "--repeat"),
        (("plan", "quick", "--bogus"), "--bogus"),
        (("kernels", "tables", "x" * 300), "no backbones.json or bench.json"),
        (("kernels", "bench", "--seconds", "nan"), "--seconds: nan is not a number of seconds"),
        (("kernels", "bench", "--seconds", "-1"), "--seconds: -1 is not a number of seconds"),
        (("kernels", "bench", "--level", "99"), "invalid value for '--level'"),
        (("kernels", "tune", "--level", "0"), "invalid value for '--level'"),
        (("kernels", "bench", "--resolution", "0"), "invalid value for '--resolution'"),
        (("kernels", "tune", "--resolution", "-5"), "invalid value for '--resolution'"),
        (("kernels", "inspect", "--kernel", "none such"), "no kernel has 'none such' in its name"),
        (("kernels", "inspect", "--arch", "sm_1"), "unknown architecture 'sm_1'"),
        (("kernels", "verify", "--out", "good/run.json"), "good/run.json is not a folder"),
        (("kernels", "bench", "--out", "good/run.json"), "good/run.json is not a folder"),
        (("kernels", "bench", "--backbones", "vit-t", "--op", "ss2d"), "--op does not apply to --backbones"),
        (("kernels", "bench", "--mode", "eager"), "--mode applies to --backbones only"),
        (("frontier", "quick", "--memory", "1GiB", "--out", "good/run.json"), "is not a folder"),
        (("trace", "quick", "--out", "good/run.json"), "good/run.json is not a folder"),
    ],
)  # fmt: skip
def test_other_options_that_mean_nothing(run: Path, words: tuple[str, ...], said: str) -> None:
    before = sorted(run.parent.rglob("*"))
    ended = vlmprof(run.parent, *words)
    assert ended.returncode == 2
    assert said in only_line(ended)
    assert sorted(run.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recommend", "good", "--max-memory", ""), "the argument after --max-memory is empty"),
        (("recommend", "good", "--scores="), "--scores= has no value"),
        (("plan", ""), "the argument after plan is empty"),
        (("plan", "folder"), "folder is a folder; pass a TOML file"),
    ],
)
def test_an_empty_argument_is_not_as_if_left_out(run: Path, words: tuple[str, ...], said: str) -> None:
    (run.parent / "folder").mkdir()
    assert said in only_line(vlmprof(run.parent, *words))
