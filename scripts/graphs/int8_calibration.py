"""What int8 needs to know of a model: the ranges of its tensors, by ONNX Runtime's calibration."""

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.case.read_case import Case
from scripts.data.parts import calibration_rows
from scripts.data.samples import Batch, Samples
from scripts.graphs.int8_flow import CARRIERS, WEIGHTED, Flow, candidates, named, plan
from scripts.graphs.int8_graph import LARGEST, Ranges, note, quantize

if TYPE_CHECKING:
    import onnx

# Two products of an activation (up to 255) and such a weight fit into the 16 bits in which an x86
# processor without VNNI adds them.
LARGEST_WITHOUT_VNNI = 64


def quantiser(
    source: "onnx.ModelProto", case: Case, data: Samples
) -> tuple[Ranges, "Callable[[frozenset[str]], onnx.ModelProto]"]:
    """(what calibration found, once; how to quantise with some nodes kept in float32).

    What comes out says what calibrated it.
    """
    ranges = calibrate(source, calibration_batches(case, data))
    rows = calibration_rows(data.labels.astype(bool), data.groups)
    return ranges, lambda keep: note(quantize(source, ranges, keep), rows)


def calibration_batches(case: Case, data: Samples) -> Iterator[Batch]:
    """The calibration samples and no others, at most `case.max_batch` at a time."""
    rows = calibration_rows(data.labels.astype(bool), data.groups).tolist()
    for start in range(0, len(rows), case.max_batch):
        yield data.rows(rows[start : start + case.max_batch])


def calibrate(model: "onnx.ModelProto", batches: Iterable[Batch]) -> Ranges:
    """The ranges of the tensors that int8 would hold, by ONNX Runtime's MinMax, batch by batch.

    Raises ValueError where there is no node to quantise, no sample, or a value that is not finite.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    nodes = candidates(model)
    if not nodes:
        found = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise ValueError(
            f"onnx_int8 was asked for, and no node of it is a Conv, Gemm or MatMul that int8 could "
            f"compute (it has {found})"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            [*WEIGHTED, "Add", *CARRIERS],
            str(path.with_name("augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
        )
        samples = 0
        for batch in batches:
            for name, array in batch.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise ValueError(f"a calibration sample of {name!r} holds NaN or infinity")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensors of NaN alone, which is told below
                calibrator.collect_data(_Once(batch))  # merges what it found into what it had
            samples += len(next(iter(batch.values())))
        if not samples:
            raise ValueError("there is no calibration sample: it needs at least 1, and has 0")
        found_ranges = calibrator.compute_data()
    largest = {
        name: float(np.max(np.abs(np.asarray(one.range_value, np.float64))))
        for name, one in found_ranges.items()
    }
    ranges = Ranges(tuple(nodes), largest, samples, weight_limit())
    flow = Flow(named(model).graph)
    for name in plan(flow, ranges.nodes, frozenset()):
        if not np.isfinite(largest[flow.scaled_as(name)]):
            raise ValueError(
                f"on the calibration samples {name!r}, which int8 would hold, is not finite"
            )
    return ranges


class _Once:
    """One batch, as ONNX Runtime's calibrator reads it."""

    def __init__(self, batch: Batch) -> None:
        self.batches = [batch]

    def get_next(self) -> Batch | None:
        return self.batches.pop() if self.batches else None


def weight_limit(processor: Path = Path("/proc/cpuinfo")) -> int:
    """The largest quantised weight that this machine's processor multiplies without saturating.

    One of x86 without VNNI saturates the sum of two products (ONNX Runtime calls the remedy
    reduce_range).
    """
    with contextlib.suppress(OSError):
        for line in processor.read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return LARGEST if "vnni" in line else LARGEST_WITHOUT_VNNI
    return LARGEST
