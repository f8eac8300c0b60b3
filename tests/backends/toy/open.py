"""Runs it in process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.case.read_case import Case
from scripts.data.samples import Run
from scripts.graphs.session import open_session, run_session

PACKAGES = ("onnxruntime",)


@contextmanager
def open_variant(
    case: Case, variant: str, model: Path, device: str, threads: int
) -> Iterator[tuple[Run, str]]:
    """(a function from batch to raw output, the name of what runs it)."""
    session = open_session(model, device, threads)
    yield (lambda batch: run_session(session, batch)), "toy"
