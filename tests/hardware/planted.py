"""A child of measure.py whose parts go wrong in every way that its tests know of."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if "hanging" in sys.argv:  # before anything that takes time
    child = subprocess.Popen(["sleep", "60"])
    Path(os.environ["PLANTED_PID"]).write_text(str(child.pid))
    time.sleep(60)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np  # noqa: E402

from tests.hardware import (  # noqa: E402
    measuring,
    parts,
)
from tests.hardware.subjects import Subject  # noqa: E402

FINE: parts.Row = {"state": "ok", "words": "", "figures": {}}
opened = measuring.open_variant


def raising(subject: Subject) -> parts.Rows:
    yield from parts.attempt("first", lambda: {"state": 1 / 0})
    yield from parts.attempt("second", lambda: FINE)


def lacking(subject: Subject) -> parts.Rows:
    yield from parts.attempt("first", lambda: lack("one_that_nobody_knows"))
    yield from parts.attempt("second", lambda: lack("onnxconverter_common"))


def lack(name: str) -> parts.Row:
    raise ModuleNotFoundError("no", name=name)


def crashing(subject: Subject) -> parts.Rows:
    yield FINE | {"what": "before"}
    os.abort()


def outside(subject: Subject) -> parts.Rows:
    yield from iter(lack("before_any_row"))


def silent(subject: Subject) -> parts.Rows:
    yield from ()


def planted(change: Callable[[Any], Any], provider: str = "torch on cpu") -> Any:
    """A part that measures the reference after `change` to its outputs, said to come from `provider`."""

    @contextmanager
    def open_variant(*arguments: Any, **more: Any) -> Iterator[Any]:
        with opened(*arguments, **more) as (run, _):
            yield (lambda batch: change(run(batch))), provider

    def part(subject: Subject) -> parts.Rows:
        measuring.open_variant = open_variant
        yield from parts.attempt("planted", lambda: measuring.measured(subject, "torch_fp32"))

    return part


def slotted(z: Any) -> Any:
    """Wrong in the second slot of a batch."""
    return z + 9 * (np.arange(len(z)) == 1)[:, None].astype(z.dtype)


parts.PARTS = {
    "raising": raising,
    "lacking": lacking,
    "crashing": crashing,
    "outside": outside,
    "silent": silent,
    "shifted": planted(lambda z: z + 3),
    "rough": planted(lambda z: z + np.float32(1e-3)),
    "elsewhere": planted(lambda z: z, "CUDAExecutionProvider"),
    "slotted": planted(slotted),
    "endless": planted(lambda z: z * np.float32("inf")),
}

if __name__ == "__main__":
    parts.main()
