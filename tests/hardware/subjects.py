"""What is measured: the bundled case, and a case made of a network of ResNet-50's size.

Files are made in the current folder, a copy of the project, by the project's own steps, when the
first part asks for them.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scripts.backends.onnxruntime import convert_fp16
from scripts.backends.onnxruntime import convert_fp32 as export_onnx
from scripts.case.read_case import Case, read_case
from scripts.data import read_samples
from scripts.data.samples import Samples, load
from scripts.files import writing
from scripts.graphs.session import default_threads
from scripts.score.score_variant import score
from scripts.variants import BY_NAME, REFERENCES, Variant, part
from scripts.verdicts.thresholds import choose_threshold
from tests.hardware import resnet50

CELL = 32  # pixels
TOML = """\
precision = 0.9

[model]
factory = "model.py:build"
arguments = {{ blocks = {blocks} }}
weights = "weights.pth"
head = "multiclass"
positive_class = 0
max_batch = {batch}

[[inputs]]
name = "image"
shape = [3, {side}, {side}]
dtype = "float32"
file = "inputs.npy"

[labels]
file = "labels.npy"
positive = 1
"""


@dataclass(frozen=True)
class Size:
    """Of the made case: samples, pixels of a side, largest batch, blocks of each stage."""

    samples: int
    side: int
    batch: int
    blocks: tuple[int, ...]


FULL = Size(256, 224, 32, resnet50.BLOCKS)
REHEARSAL = Size(12, 64, 4, (1, 1, 1, 1))


@dataclass(frozen=True)
class Subject:
    """A case in the current folder, its samples, the device to measure, and the reference."""

    case: Case
    data: Samples
    results: Path
    device: str

    def artefact(self, variant: str) -> Path:
        """The file of a variant, made by the project's step where it is missing."""
        one = BY_NAME[variant]
        if one.file is None or one.source is None:
            return self.case.weights
        out = Path(f"model_repository/{self.case.name}_{variant}/1/{one.file}")
        if not out.exists():
            self.make(one, self.artefact(one.source), out)
        return out

    def make(self, variant: Variant, source: Path, out: Path) -> None:
        """Run the step that makes `out` of `source`; a trace is made on the device it is for."""
        common: dict[str, Any] = {"case_toml": self.case.path, "samples": self.samples, "out": out}
        if variant.runtime == "tensorrt":
            from tests.hardware.engines import build

            build(self.case, source, out)
        elif variant.runtime == "torchscript":
            from scripts.backends.pytorch import trace_torchscript

            trace_torchscript.main.callback(device=self.device, **common)
        elif variant.precision == "float16":
            convert_fp16.main.callback(model=source, **common)
        else:
            export_onnx.main.callback(**common)

    @property
    def samples(self) -> Path:
        return self.results / "samples.json"

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """Logits of the .pth in float32 on the CPU, (n,)."""
        out = self.results / "cpu.logits.npy"
        if not out.exists():
            name, threads = REFERENCES["torch"].name, default_threads()
            opening = part(name, "open").open_variant
            opened = opening(self.case, name, self.case.weights, "cpu", threads)
            with opened as (run, _), writing(out) as temporary:
                score(self.case, run, self.data, temporary, "reference on the CPU")
        return np.array(load(out))

    @cached_property
    def threshold(self) -> float:
        """The bundled case's own; in the made case, whose labels mean nothing, the widest gap."""
        if self.case.name == "digits":
            return choose_threshold(self.reference, self.data.labels, self.case.precision).logit
        return widest_gap(self.reference)


def open_subject(name: str, rehearse: bool) -> Subject:
    """The case `name`, its samples read by the project's own step; rehearsed on the CPU."""
    toml, results = Path(f"data/{name}/case.toml"), Path(f"results/{name}")
    if name == "resnet50" and not toml.exists():
        make_resnet50(toml, REHEARSAL if rehearse else FULL)
    case = read_case(toml)
    if not (results / "samples.json").exists():
        read_samples.main.callback(case_toml=toml, out=results / "samples.json")
    data = Samples(case, results / "samples.json")
    return Subject(case, data, results, "cpu" if rehearse else "cuda")


def make_resnet50(toml: Path, size: Size) -> None:
    """A case folder with seeded weights and inputs; case.toml, which says that it is whole, last."""
    folder = toml.parent
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(resnet50.__file__, folder / "model.py")
    torch.save(resnet50.seeded(size.blocks).state_dict(), folder / "weights.pth")
    np.save(folder / "inputs.npy", pictures(size.samples, size.side))
    np.save(folder / "labels.npy", (np.arange(size.samples) % 2).astype(np.uint8))
    toml.write_text(TOML.format(side=size.side, batch=size.batch, blocks=list(size.blocks)))


def pictures(count: int, side: int) -> NDArray[np.float32]:
    """(count, 3, side, side): coloured squares of varying contrast with noise, so that the logits
    of a random network differ."""
    random = np.random.default_rng(resnet50.SEED)
    cells = -(-side // CELL)
    made = np.empty((count, 3, side, side), np.float32)
    for image in made:
        squares = random.normal(0, random.uniform(0.25, 2), (3, cells, cells))
        squares = np.kron(squares, np.ones((CELL, CELL)))[:, :side, :side]
        image[:] = squares + random.normal(size=(3, 1, 1)) + random.normal(0, 0.25, image.shape)
    return made


def widest_gap(logits: NDArray[np.float32]) -> float:
    """The middle of the widest gap among the middle half of the logits."""
    z = np.sort(logits.astype(np.float64))
    quarter = len(z) // 4
    middle = z[quarter : len(z) - quarter]
    i = int(np.argmax(np.diff(middle)))
    return float((middle[i] + middle[i + 1]) / 2)
