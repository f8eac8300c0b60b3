"""Runs TorchScript in process, as Triton's PyTorch backend is told to run it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import Case
from scripts.data.samples import Run
from scripts.families.torch.model import exact_float32, run_torch, set_torch

PACKAGES = ("torch",)


@contextmanager
def open_variant(
    case: Case, variant: str, model: Path, device: str, threads: int
) -> Iterator[tuple[Run, str]]:
    """(a function from batch to raw output, the name of what runs it)."""
    set_torch(device, threads)
    with open_torchscript(model, device) as run:
        yield run, f"TorchScript on {device}"


@contextmanager
def open_torchscript(path: Path, device: str) -> Iterator[Any]:
    """A function from batch to raw output; the graph runs as it was saved, as Triton is told too.

    Without that the executor rewrites the graph after the first runs, and results change with it.
    """
    import torch

    exact_float32()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = torch.jit.load(str(path), map_location=device).eval()
        except Exception as error:  # torch raises many kinds; its words are kept
            raise click.ClickException(
                f"PyTorch does not load {path} on {device}: {str(error).strip().splitlines()[0]}"
            ) from None
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield lambda batch: run_torch(model, batch, device)
