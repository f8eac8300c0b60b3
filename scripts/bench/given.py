"""For `make bench`: what ours and theirs are given alike, and what a call adds to memory."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.data import parts

LOGITS = 10_000_000
NOISE = {  # bias, standard deviation of variant minus reference
    "fp32": (0.0, 1e-6),
    "fp16": (0.0, 1e-3),
    "bf16": (0.0, 8e-3),
    "int8": (0.0, 2e-2),
    "biased": (2e-2, 1e-3),
}
CALIBRATED = "int8"


Array = NDArray[Any]
Parts = tuple[Array, Array, Array, Array]  # rows: choose, tune, accept the tuning, judge

# Peak memory of this process alone: ru_maxrss would carry over what its parent had.
PEAK = """
def kib(key):
    return int(open("/proc/self/status").read().split(key + ":")[1].split()[0])
"""
# The most memory that one call adds to what is in use before it (Linux resets its mark on request).
ADDED = """
open("/proc/self/clear_refs", "w").write("5")
before = kib("VmRSS")
{call}
print((kib("VmHWM") - before) * 1024)
"""


@dataclass(frozen=True)
class Data:
    """What both are given; arrays (n,)."""

    reference: NDArray[np.float32]
    labels: NDArray[np.bool_]
    variants: dict[str, NDArray[np.float32]]
    calibrated: NDArray[np.int64]  # rows


def logits() -> tuple[Any, Any]:
    """Ten million float32 logits of two overlapping classes, and the labels (uint8)."""
    random = np.random.default_rng(0)
    y = (random.random(LOGITS, np.float32) < 0.3).astype(np.uint8)
    return random.standard_normal(LOGITS, np.float32) + 2 * y - np.float32(1), y


def sklearn_threshold(z: Any, y: Any) -> float:
    """The lowest score whose precision is at least 0.9: the same choice, by the library's curve."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, scores = precision_recall_curve(y, z)
    enough = np.flatnonzero(precision[:-1] >= 0.9)
    best = recall[enough[0]]  # recall falls along the curve; ties: the highest precision
    return float(scores[enough[recall[enough] == best]][-1])


def make(n: int) -> Data:
    """Logits of two overlapping classes, and each variant's: with its noise and bias."""
    reference, labels = (array[:n] for array in logits())
    random = np.random.default_rng(1)
    variants = {
        name: reference + (random.standard_normal(n, np.float32) * np.float32(noise) + np.float32(bias))
        for name, (bias, noise) in NOISE.items()
    }  # fmt: skip
    flags = labels.astype(bool)
    return Data(reference, flags, variants, parts.calibration_rows(flags))


def store(data: Data, folder: Path) -> None:
    """Write the arrays to `folder`."""
    folder.mkdir(parents=True)
    for name in ("reference", "labels", "calibrated"):
        np.save(folder / f"{name}.npy", getattr(data, name))
    for name, array in data.variants.items():
        np.save(folder / f"{name}.npy", array)


def load(folder: Path) -> Data:
    """What store() wrote, read into memory: it counts for neither."""
    array = {name: np.load(folder / f"{name}.npy")
             for name in ("reference", "labels", "calibrated", *NOISE)}  # fmt: skip
    variants = {name: array[name] for name in NOISE}
    return Data(array["reference"], array["labels"], variants, array["calibrated"])


def added_memory(setup: str, call: str) -> int:
    """The most memory, in bytes, that `call` adds after `setup`, in a process of its own."""
    return int(run_python(PEAK + setup + ADDED.format(call=call))[-1])


def run_python(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout.split()
