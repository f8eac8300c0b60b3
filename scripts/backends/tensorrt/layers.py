"""A TensorRT engine beside the ONNX that it was built from, tensor by tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from scripts.backends.tensorrt.engine import infer, marked_engine, open_engine, running
from scripts.backends.tensorrt.form import tensorrt_form
from scripts.case.read_case import Case
from scripts.graphs.marked import Inner
from scripts.variants import Variant

PACKAGES = ("onnxruntime", "tensorrt")


def how(name: str) -> str:
    """How the variant is run here, for the report."""
    return "a TensorRT engine built so is compared with ONNX Runtime on the CPU."


@contextmanager
def open_layers(
    case: Case, variant: Variant, source: Path, model: Path, size: int
) -> Iterator[tuple[Inner, Inner, int]]:
    """(an engine with every tensor as an output, the engine as served, the batch for both).

    The first is an engine built anew from the ONNX, for batches of at most the case's largest.
    """
    with tensorrt_form(source, variant.precision) as form:
        engine = running(marked_engine(form, case), f"{source} with every tensor marked")
        with engine as found, open_engine(model) as served:
            largest = min(size, case.max_batch)
            yield partial(infer, found), partial(infer, served), largest
