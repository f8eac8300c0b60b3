"""Runs a TensorRT engine in process, on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from scripts.backends.tensorrt.engine import infer, open_engine
from scripts.case.read_case import Case
from scripts.data.samples import Run

PACKAGES = ("tensorrt",)


@contextmanager
def open_variant(
    case: Case, variant: str, model: Path, device: str, threads: int
) -> Iterator[tuple[Run, str]]:
    """(a function from batch to raw output, the name of what runs it)."""
    if device != "cuda":
        raise click.ClickException(
            f"{variant} runs on a GPU only; it was asked for on the {device}. Run with GPU=yes."
        )
    with open_engine(model) as runner:
        yield (lambda batch: only(infer(runner, batch))), "TensorRT"


def only(outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The one output that every converted model has."""
    [output] = outputs.values()
    return output
