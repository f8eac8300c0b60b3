"""A converted ONNX beside the one that it was made from, tensor by tensor, both on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.case.read_case import Case
from scripts.graphs.marked import Inner, marked, plain
from scripts.variants import Variant

PACKAGES = ("onnxruntime",)


def how(name: str) -> str:
    """How the variant is run here, for the report."""
    half = "each float16 tensor is rounded as a GPU would, " if "fp16" in name else ""
    return f"{half}on the CPU."


@contextmanager
def open_layers(
    case: Case, variant: Variant, source: Path, model: Path, size: int
) -> Iterator[tuple[Inner, Inner, int]]:
    """(the model with every tensor as an output, the model as served, the batch for both)."""
    yield marked(model), plain(model), size
