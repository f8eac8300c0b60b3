"""`make gate` on the bundled case with other rules, and `make compare` between the two outcomes."""

import json
import shutil

import numpy as np
import pytest

from tests.project import ROOT, Project

pytestmark = pytest.mark.xdist_group("gate")  # both look at one copy, in this order


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("gate"))


def run_gate(project: Project, flip_rate: float) -> tuple[int, str]:
    """(the exit code of the program that make calls, its line), after a make gate with these rules."""
    toml = project.folder / "data/digits/case.toml"
    text = (ROOT / "data/digits/case.toml").read_text()
    skip = 'precision = 0.9\nskip = ["torchscript_fp32", "onnx_fp16", "onnx_bf16"]\n'
    toml.write_text(f"{text.replace('precision = 0.9', skip)}\n[gates]\nflip_rate = {flip_rate}\n")
    made = project.make("gate")
    asked = project.run(
        "python3", "-m", "scripts.release.decide_release", "results/digits/report.json"
    )
    assert made.returncode == (2 if asked.returncode else 0), made.stdout + made.stderr
    assert made.stdout.splitlines()[-1] == asked.stdout.strip()
    return asked.returncode, asked.stdout


def test_int8_that_flips_is_told_from_a_fallback_that_does_not(judged: Project) -> None:
    """Of 899 samples the folds' thresholds flip one in int8: at most 0.8 % of new ones, and 0.4 % without."""
    code, line = run_gate(judged, 0.005)
    assert (code, line) == (
        2,
        "digits: only the fallback passes: onnx_fp32 passes every gate, and no other variant does (exit 2)\n",
    )
    shutil.copytree(judged.folder / "results/digits", judged.folder / "before")
    code, line = run_gate(judged, 0.02)
    assert code == 0, line
    report = json.loads((judged.folder / "results/digits/report.json").read_text())
    assert report["decision"]["exit"] == 0
    assert {gate["state"] for gate in report["variants"]["onnx_int8"]["gates"]} == {"passed"}
    told = judged.make("compare", "OLD=before/report.json")
    assert told.returncode == 0, told.stderr
    assert "parity" in told.stdout and "onnx_int8" in told.stdout
    assert (
        judged.make("-q", "gate").returncode == 1
    )  # it asks every time, and measures nothing again
    again = judged.make("gate")
    assert again.stdout == line


def test_unlabelled_traffic_counts(judged: Project) -> None:
    """The same inputs once more, without labels: twice the samples, a smaller bound."""
    before = json.loads((judged.folder / "results/digits/claims.json").read_text())
    folder = judged.folder / "data/digits"
    (folder / "traffic").mkdir()
    inputs = np.load(folder / "inputs.npy")
    np.save(folder / "traffic/inputs.npy", inputs[::-1] * np.float32(0.97))
    toml = folder / "case.toml"
    toml.write_text(toml.read_text() + '\n[data]\nunlabelled = "traffic"\n')
    done = judged.make("results/digits/claims.json", "SERVED=no")
    assert done.returncode == 0, done.stdout + done.stderr
    after = json.loads((judged.folder / "results/digits/claims.json").read_text())
    for name in ("onnx_fp32", "onnx_int8"):
        row = after["variants"][name]
        assert row["traffic"]["samples"] == 899
        assert row["bounded"]["samples"] == before["variants"][name]["bounded"]["samples"] + 899
    assert (
        after["variants"]["onnx_fp32"]["flip_rate_upper"]
        < 0.6 * before["variants"]["onnx_fp32"]["flip_rate_upper"]
    )
