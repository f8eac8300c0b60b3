"""TensorRT through polygraphy: opens engines, and builds one with every tensor as an output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.case.read_case import Case
from scripts.data.samples import Batch
from scripts.graphs.marked import Outputs, quiet


@contextmanager
def running(engine: Any, name: str) -> Iterator[Any]:
    """A polygraphy TrtRunner of `engine` (a loader), ready to run on the first GPU.

    Raises click.ClickException where TensorRT cannot load it: no GPU, or another TensorRT's plan.
    """
    quiet()
    from polygraphy.backend.trt import TrtRunner
    from polygraphy.exception import PolygraphyException

    runner = TrtRunner(engine, name=name, optimization_profile=0)
    try:
        runner.activate()
    except (PolygraphyException, RuntimeError, TypeError) as error:
        raise click.ClickException(
            f"TensorRT does not load {name}: {str(error).strip()} A plan loads only in the "
            "TensorRT version and on the kind of GPU that built it; remove it and run `make all`."
        ) from None
    try:
        yield runner
    finally:
        runner.deactivate()


@contextmanager
def open_engine(path: Path) -> Iterator[Any]:
    """A TrtRunner of the plan at `path`; `infer` runs it, `.engine` is what was deserialised."""
    from polygraphy.backend.common import BytesFromPath
    from polygraphy.backend.trt import EngineFromBytes

    # From bytes: polygraphy 0.50 (in the 26.07 image) cannot read a plan by its path on TensorRT 11.
    with running(EngineFromBytes(BytesFromPath(str(path))), str(path)) as runner:
        yield runner


def infer(runner: Any, batch: Batch) -> Outputs:
    """All outputs, copied: the runner gives views of buffers that its next call overwrites."""
    rows = {name: np.ascontiguousarray(array) for name, array in batch.items()}
    return {name: np.array(array) for name, array in runner.infer(rows).items()}


def marked_engine(onnx_file: Path, case: Case) -> Any:
    """A loader that builds an engine from ONNX with every tensor as an output; TF32 off."""
    quiet()
    from polygraphy import constants
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineFromNetwork,
        ModifyNetworkOutputs,
        NetworkFromOnnxPath,
        Profile,
    )

    network = NetworkFromOnnxPath(str(onnx_file), strongly_typed=True)
    profile = Profile()
    for one in case.inputs:
        largest = (case.max_batch, *one.shape)
        profile.add(one.name, min=(1, *one.shape), opt=largest, max=largest)
    return EngineFromNetwork(
        ModifyNetworkOutputs(network, outputs=constants.MARK_ALL),
        CreateConfig(profiles=[profile], tf32=False),
    )
