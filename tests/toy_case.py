"""A small complete case, and the steps that read it, run as a user runs them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from scripts.case.read_case import read_case
from scripts.data import read_samples
from scripts.families.torch import check_model

SLIP = re.compile(r"\?\.|\s\.(\s|$)|[^.]\.\.(\s|$)")

TOML = """\
precision = 0.9

[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 4

[[inputs]]
name = "x"
shape = [2]
dtype = "float32"
file = "inputs.npy"

[labels]
file = "labels.npy"
positive = 1
"""

MODEL = """\
import collections

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(2, width)

    def forward(self, x):
        return self.fc(x)


def build(width=1):
    return Net(width)
"""

INPUTS = np.array([[0.5, -1], [2, 0], [-3, 1], [1, 1], [0, 0.25], [-1, -2]], np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0], np.uint8)
WEIGHT, BIAS = np.array([[1.5, -0.5]], np.float32), np.array([0.25], np.float32)
LOGITS = INPUTS @ WEIGHT.T + BIAS  # what the model of the case gives, shape (6, 1)


class Toy:
    """data/toy below the current folder: two numbers in, one logit out, six samples."""

    folder = Path("data/toy")
    toml = folder / "case.toml"
    results = Path("results/toy")
    samples = results / "samples.json"
    checked = results / "torch_fp32.check.json"

    def __init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.toml.write_text(TOML)
        self.write("model.py", MODEL)
        self.save_weights(state())
        self.save("inputs.npy", INPUTS)
        self.save("labels.npy", LABELS)

    def write(self, name: str, text: str) -> Path:
        """A text file of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def change(self, old: str, new: str, name: str = "case.toml") -> None:
        """Replace one place of case.toml (or of another file); it must be there, and once."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        self.write(name, text.replace(old, new))

    def forward(self, *lines: str, parameters: str = "x") -> None:
        """Give the model another forward()."""
        body = "\n".join(f"        {line}" for line in lines)
        old = "    def forward(self, x):\n        return self.fc(x)"
        self.change(old, f"    def forward(self, {parameters}):\n{body}", "model.py")

    def save(self, name: str, array: Any) -> None:
        np.save(self.folder / name, array)

    def save_weights(self, content: Any, **options: Any) -> None:
        import torch

        torch.save(content, self.folder / "weights.pth", **options)

    def read(self) -> Result:
        """Run read_samples."""
        return run(read_samples.main, self.toml, "--out", self.samples)

    def check(self) -> Result:
        """Run check_model."""
        return run(check_model.main, self.toml, "--samples", self.samples, "--out", self.checked)

    def output(self) -> NDArray[Any]:
        """What the model of the case gives for INPUTS, through the code that every step uses."""
        from scripts.families.torch.model import load_model, run_torch

        return run_torch(load_model(read_case(self.toml)), {"x": INPUTS}, "cpu")

    def contents(self) -> dict[str, bytes]:
        """Every file of the results, hidden ones too, with its bytes."""
        found = (path for path in self.results.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found}

    def refuses(self, step: Callable[[], Result], *words: object) -> str:
        """The step ends in sentences with all of `words`; the results of before stay the same."""
        before = self.contents()
        assert before, "there is no earlier result that the step could spoil"
        result = step()
        text = says(result, *words)
        assert self.contents() == before, f"an earlier result is not what it was, after: {text}"
        return text


def state(width: int = 1) -> dict[str, Any]:
    """The state_dict of the toy model."""
    import torch

    rows = np.repeat(WEIGHT, width, axis=0), np.repeat(BIAS, width)
    return {"fc.weight": torch.from_numpy(rows[0]), "fc.bias": torch.from_numpy(rows[1])}


def run(main: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def says(result: Result, *words: object) -> str:
    """The text of a refusal in sentences: no success, no traceback, every word of `words`."""
    assert result.exit_code != 0, f"accepted: {result.output}"
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    text = result.output
    assert text.startswith("Error: "), text
    assert not SLIP.search(text), f"punctuation: {text}"
    missing = [str(word) for word in words if str(word) not in text]
    assert not missing, f"{missing} not said in: {text}"
    return text
