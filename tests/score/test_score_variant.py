"""Scoring: what stood there before stays when a run is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from scripts.data import read_samples, read_traffic
from scripts.score.score_variant import main
from tests.toy_case import BIAS, INPUTS, WEIGHT, Toy, run


def score(toy: Toy, out: Path, device: str = "cpu") -> Result:
    arguments = [str(toy.toml), "--variant", "torch_fp32", "--samples", str(toy.samples),
                 "--model", str(toy.folder / "weights.pth"), "--mode", "local",
                 "--device", device, "--out", str(out)]  # fmt: skip
    return CliRunner().invoke(main, arguments)


def test_a_reference_with_nan_is_refused_and_earlier_logits_stay(read_toy: Toy) -> None:
    read_toy.read()
    out = read_toy.samples.parent / "torch_fp32.logits.npy"
    good = score(read_toy, out)
    assert good.exit_code == 0, good.output
    kept = {path: path.read_bytes() for path in out.parent.iterdir()}
    assert np.isfinite(np.load(out)).all()
    read_toy.change("return self.fc(x)", "return self.fc(x) * float('nan')", "model.py")
    done = score(read_toy, out)
    assert done.exit_code == 1, done.output
    assert "gives NaN or infinity for 6 of 6 samples" in done.output
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == kept


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(read_toy: Toy) -> None:
    read_toy.read()
    out = read_toy.samples.parent / "torch_fp32.logits.npy"
    done = score(read_toy, out, "cuda")
    assert done.exit_code == 1
    assert "asked for a GPU and finds none" in done.output
    assert not out.exists()


# ---- the samples without labels --------------------------------------------------------------------

NEW = np.array([[1, 2], [3, -4], [0.5, 0]], np.float32)


@pytest.fixture
def traffic(read_toy: Toy) -> Path:
    """traffic.json of three samples more."""
    read_toy.toml.write_text(read_toy.toml.read_text() + '[data]\nunlabelled = "traffic"\n')
    (read_toy.folder / "traffic").mkdir()
    read_toy.save("traffic/inputs.npy", NEW)
    path = read_toy.results / "traffic.json"
    for main_, out in ((read_samples.main, read_toy.samples), (read_traffic.main, path)):
        done = run(main_, read_toy.toml, "--out", out)
        assert done.exit_code == 0, done.output
    return path


def score_with(toy: Toy, samples: Path, name: str) -> Result:
    out = toy.results / name
    return run(main, toy.toml, "--variant", "torch_fp32", "--samples", samples, "--model",
               toy.folder / "weights.pth", "--mode", "local", "--device", "cpu", "--out", out)  # fmt: skip


@pytest.mark.parametrize(
    ("labelled", "name", "words"),
    [
        (True, "torch_fp32.traffic.npy", ["labelled", "<variant>.logits.npy"]),
        (False, "torch_fp32.logits.npy", ["unlabelled", "<variant>.traffic.npy"]),
        (True, "torch_fp32.npy", ["<variant>.logits.npy", "results/toy/torch_fp32.npy"]),
        (False, "traffic.npy", ["<variant>.traffic.npy", "results/toy/traffic.npy"]),
    ],
)
def test_logits_do_not_go_where_others_look_for_other_samples(
    read_toy: Toy, traffic: Path, labelled: bool, name: str, words: list[str]
) -> None:
    samples = read_toy.samples if labelled else traffic
    read_toy.refuses(lambda: score_with(read_toy, samples, name), *words)


def test_traffic_is_scored_beside_the_test_data(read_toy: Toy, traffic: Path) -> None:
    for samples, name in ((read_toy.samples, "logits"), (traffic, "traffic")):
        done = score_with(read_toy, samples, f"torch_fp32.{name}.npy")
        assert done.exit_code == 0, done.output
    assert done.output == "torch_fp32: 3 unlabelled samples scored on torch on cpu\n"
    folder = read_toy.results
    for name, inputs in (("logits", INPUTS), ("traffic", NEW)):
        logits = np.load(folder / f"torch_fp32.{name}.npy")
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, (inputs @ WEIGHT.T + BIAS)[:, 0], atol=1e-6)
    own, other = (
        json.loads((folder / f"torch_fp32.{name}.json").read_text())
        for name in ("score", "traffic")
    )
    assert (own["step"], own["metrics"]["samples"]) == ("score", 6)
    assert (other["step"], other["metrics"]["samples"]) == ("traffic_score", 3)
    assert list(own) == list(other)
    assert list(other["logits"]) == ["results/toy/torch_fp32.traffic.npy"]
    assert "results/toy/traffic.json" in other["inputs"]
    assert "results/toy/samples.json" not in other["inputs"]
