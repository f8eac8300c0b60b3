"""Scoring: what stood there before stays when a run is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from toy_case import Toy

from scripts.score_variant import main


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
