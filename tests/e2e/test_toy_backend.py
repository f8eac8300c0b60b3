"""A backend is one folder and one line of the list: `make all` of a copy has all of it, nothing else changed."""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.project import ROOT, Project

LINE = """\
    Variant(
        "toy_fp32", "torch", "onnx_fp32", "toy", "float32", "model.onnx", "toy", "pytorch", False,
        "The float32 ONNX, served by a backend of its own.",
    ),
)  # fmt: skip
"""
OTHERS = ("torchscript_fp32", "onnx_fp16", "onnx_bf16", "onnx_int8")  # left out to be quick
SAMPLES = 120


def with_toy(project: Project) -> None:
    """One folder, one line."""
    ignored = shutil.ignore_patterns("__pycache__", "README.md")
    folder = project.folder / "scripts/backends/toy"
    shutil.copytree(ROOT / "tests/backends/toy", folder, ignore=ignored)
    listed = project.folder / "scripts/variants.py"
    text = listed.read_text()
    assert text.count(")  # fmt: skip\n") == 1
    listed.write_text(text.replace(")  # fmt: skip\n", LINE))


def small_case(project: Project) -> None:
    """The bundled case with fewer samples and variants."""
    folder = project.folder / "data/digits"
    for name in ("inputs.npy", "labels.npy"):
        np.save(folder / name, np.load(folder / name)[:SAMPLES])
    project.leave_out(*OTHERS)


def test_make_all_has_its_row_its_logits_its_served_parity_and_its_candidate(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project", own_triton=True)
    small_case(project)
    with_toy(project)
    done = project.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    results, repository = (project.folder / name for name in ("results/digits", "model_repository"))
    logits = {name: np.load(results / f"{name}.logits.npy") for name in ("onnx_fp32", "toy_fp32")}
    assert len(logits["toy_fp32"]) == SAMPLES
    np.testing.assert_array_equal(logits["toy_fp32"], logits["onnx_fp32"])
    row = json.loads((results / "report.json").read_text())["variants"]["toy_fp32"]
    assert row["measured"] and row["flips"]["total"] == 0
    assert row["served"]["server"]["backend"] == "toy"
    assert len(row["served"]["conditions"]) == 9 and not row["served"]["samples"]
    assert row["latency"]["1"]["rounds"] > 0
    states = {gate["gate"]: gate["state"] for gate in row["gates"]}
    assert states["proven precision"] == states["served parity"] == "passed"
    assert "| `toy_fp32` |" in (results / "report.md").read_text()
    assert (results / "toy_fp32.deviation.png").is_file()
    config = (repository / "digits_toy_fp32/config.pbtxt").read_text()
    assert 'backend: "toy"' in config
    assert (repository / "digits_toy_fp32/1/model.onnx").is_file()
    assert project.make("all").stdout == "make: Nothing to be done for 'all'.\n"
