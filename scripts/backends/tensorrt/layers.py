"""A TensorRT engine beside the ONNX that it was built from, tensor by tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.backends.tensorrt.engine import marked_engine, open_engine, running
from scripts.backends.tensorrt.form import tensorrt_form
from scripts.case.read_case import Case
from scripts.variants import Variant

PACKAGES = ("onnxruntime", "tensorrt")


def how(name: str) -> str:
    """How the variant is run here, for the report."""
    return "a TensorRT engine built so is compared with ONNX Runtime on the CPU."


@contextmanager
def open_layers(
    case: Case, variant: Variant, source: Path, model: Path, size: int
) -> Iterator[tuple[Any, Any, int]]:
    """(a runner with every tensor as an output, one of the engine as served, the batch for both).

    The first is an engine built anew from the ONNX, for batches of at most the case's largest.
    """
    with tensorrt_form(source, variant.precision) as form:
        engine = running(marked_engine(form, case), f"{source} with every tensor marked")
        with engine as found, open_engine(model) as served:
            yield found, served, min(size, case.max_batch)
