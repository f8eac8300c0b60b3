"""Runs the reference in process: the .pth itself in true float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.case.read_case import Case
from scripts.data.samples import Run
from scripts.families.torch.model import load_model, run_torch, set_torch

PACKAGES = ("torch",)


@contextmanager
def open_variant(
    case: Case, variant: str, model: Path, device: str, threads: int
) -> Iterator[tuple[Run, str]]:
    """(a function from batch to raw output, the name of what runs it)."""
    set_torch(device, threads)
    network = load_model(case).to(device)
    yield (lambda batch: run_torch(network, batch, device)), f"torch on {device}"
