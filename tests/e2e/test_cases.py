"""Whole cases through `make all`: one of our own with every oddity, and three trained by others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.project import ROOT, Project

SHARED = ROOT.parent / "shared" / "cases"

ODD_TOML = """
precision = 0.8
[model]
factory = "model.py:build"
arguments = { classes = 5 }
weights = "checkpoint.pth"
head = "probability"
output = "chance"
max_batch = 7
[[inputs]]
name = "words"
shape = [6]
dtype = "int64"
file = "words.npy"
[[inputs]]
name = "numbers"
shape = [3]
dtype = "float32"
file = "numbers.npy"
[labels]
file = "labels.npy"
"""
ODD_MODEL = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.words = nn.Embedding(11, classes)
        self.mix = nn.Linear(classes + 3, 1)

    def forward(self, numbers, words):
        hidden = torch.cat([self.words(words).mean(1), numbers], 1)
        return {"hidden": hidden, "chance": torch.sigmoid(self.mix(hidden)).squeeze(-1)}

def build(classes):
    return Odd(classes)
"""


def add_odd_case(project: Project) -> None:
    folder = project.folder / "data/odd"
    folder.mkdir()
    (folder / "case.toml").write_text(ODD_TOML)
    (folder / "model.py").write_text(ODD_MODEL)
    scope: dict[str, object] = {}
    exec(ODD_MODEL, scope)
    torch.manual_seed(0)
    model = scope["build"](5)  # type: ignore[operator]
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state}, folder / "checkpoint.pth")
    random = np.random.default_rng(0)
    words = random.integers(0, 11, (100, 6))
    numbers = random.normal(size=(100, 3)).astype(np.float32)
    with torch.inference_mode():
        chance = model(torch.from_numpy(numbers), torch.from_numpy(words))["chance"].numpy()
    labels = (chance + random.normal(0, 0.05, 100) > np.median(chance)).astype(np.int32)
    for name, array in (("words", words), ("numbers", numbers), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)


def report_of(project: Project, case: str, *settings: str) -> dict:
    done = project.make("all", f"CASE={case}", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.make("-q", "all", f"CASE={case}", *settings).returncode == 0
    return json.loads((project.folder / f"results/{case}/report.json").read_text())


def test_two_inputs_integers_several_outputs_a_probability_and_a_prefix(project: Project) -> None:
    add_odd_case(project)
    project.leave_out("onnx_fp16", "onnx_bf16", "onnx_int8", case="odd")
    report = report_of(project, "odd")
    assert report["samples"] == 100
    assert report["variants"]["onnx_fp32"]["flips"]["total"] == 0
    assert report["variants"]["onnx_fp32"]["deviation"]["max_absolute"] < 1e-5
    config = (project.folder / "model_repository/odd_onnx_fp32/config.pbtxt").read_text()
    assert 'name: "words" data_type: TYPE_INT64 dims: [6]' in config
    assert 'name: "output" data_type: TYPE_FP32 dims: [1] reshape { }' in config


@pytest.mark.parametrize(
    ("case", "accuracy", "samples"),
    [("drowsy", 0.9353, 1500), ("deepfake", 0.58, 200), ("sentiment", 0.83, 200)],
)
def test_models_trained_by_others(
    project: Project, case: str, accuracy: float, samples: int
) -> None:
    if not (SHARED / case).is_dir():
        pytest.skip(f"the weights and data of {case} are not on this machine")
    folder = project.folder / "data" / case
    shutil.copytree(ROOT / "tests/cases" / case, folder)
    for path in (SHARED / case).iterdir():
        (folder / path.name).symlink_to(path)
    # Minutes on two cores: the two with images are not tried in Triton here, and one has every form.
    served = [] if case == "sentiment" else ["SERVED=no"]
    if case != "drowsy":
        project.leave_out("torchscript_fp32", "onnx_fp16", "onnx_bf16", case=case)
    report = report_of(project, case, *served)
    results = project.folder / "results" / case
    logits, labels = np.load(results / "torch_fp32.logits.npy"), np.load(results / "labels.npy")
    assert len(logits) == samples
    assert ((logits >= 0) == labels).mean() == pytest.approx(accuracy, abs=5e-5)
    assert report["variants"]["onnx_fp32"]["flips"]["total"] == 0
    chosen = report["variants"][report["recommendation"]["variant"]]
    assert "failed" not in {gate["state"] for gate in chosen["gates"]}
    assert report["decision"]["exit"] in (
        3,
        4,
    )  # too little data for 1 flip in 1,000, whatever flips
    check_int8(report, results)
    if case == "deepfake":  # hardly better than chance: the threshold rests on a single sample
        assert report["threshold"]["predicted_positives"] == 1
        assert "**Little evidence:**" in (results / "report.md").read_text()


def check_int8(report: dict, results: Path) -> None:
    """The report holds int8, its flips, and what the repair did or why it did nothing."""
    int8, mixed = (report["variants"][name] for name in ("onnx_int8", "onnx_int8_mixed"))
    assert int8["measured"] and int8["precision_proof"]["share"] > 0.9
    assert int8["samples"] + int8["calibration"]["samples"] == report["samples"]
    repair, text = mixed["repair"], (results / "report.md").read_text()
    assert repair["reason"] in text
    assert mixed["measured"] is repair["made"]
    if repair["made"]:
        assert 0 < len(repair["kept"]) < repair["nodes"]
        assert repair["held_out"]["flips_after"] < repair["held_out"]["flips_before"]
        assert f"`onnx_int8_mixed`: keeping {len(repair['kept'])} of" in text
    else:
        assert mixed["reason"] == repair["reason"]


def test_a_new_case_is_written_once_and_says_what_to_do(project: Project) -> None:
    done = project.make("new", "CASE=mask")
    assert done.returncode == 0, done.stderr
    toml = project.folder / "data/mask/case.toml"
    assert "make all CASE=mask" in done.stdout
    text = toml.read_text()
    again = project.make("new", "CASE=mask")
    assert again.returncode != 0
    assert "is there already and stays as it is" in again.stderr
    assert toml.read_text() == text
    empty = project.make("all", "CASE=mask")
    assert empty.returncode != 0
    assert "data/mask/labels.npy does not exist" in empty.stderr
    np.save(toml.with_name("labels.npy"), np.array([0, 1], np.uint8))
    np.save(toml.with_name("inputs.npy"), np.zeros((2, 3, 224, 224), np.float32))
    bare = project.make("all", "CASE=mask")
    assert bare.returncode != 0
    assert "the weights data/mask/weights.pth do not exist; put the .pth there" in bare.stderr


def test_the_training_script_makes_the_bundled_files_again(project: Project) -> None:
    folder = project.folder / "data/digits"
    kept = {name: np.load(folder / name) for name in ("inputs.npy", "labels.npy")}
    weights = torch.load(folder / "weights.pth", weights_only=True)
    for name in (*kept, "weights.pth"):
        (folder / name).unlink()
    done = project.run(".venv/bin/python", "data/digits/train.py")
    assert done.returncode == 0, done.stderr
    for name, array in kept.items():
        assert np.array_equal(np.load(folder / name), array)
    again = torch.load(folder / "weights.pth", weights_only=True)
    assert {name: tensor.shape for name, tensor in again.items()} == {
        name: tensor.shape for name, tensor in weights.items()
    }
    # Sums differ between processors and training magnifies that, so the weights are not the same
    # everywhere; the answers are nearly.
    inputs, labels = torch.from_numpy(kept["inputs.npy"]), kept["labels.npy"]
    old, new = (answers(folder, state, inputs) for state in (weights, again))
    assert (new == old).mean() > 0.98
    assert min((old == labels).mean(), (new == labels).mean()) > 0.97


def answers(folder: Path, state: dict[str, torch.Tensor], inputs: torch.Tensor) -> np.ndarray:
    """Whether each sample is an 8, by the bundled model with these weights."""
    scope: dict[str, object] = {}
    exec((folder / "model.py").read_text(), scope)
    model = scope["build"]()  # type: ignore[operator]
    model.load_state_dict(state)
    with torch.inference_mode():
        return model.eval()(inputs).numpy()[:, 0] >= 0
