"""An ONNX model with every tensor as an output, run by ONNX Runtime through polygraphy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import Batch

Outputs = dict[str, NDArray[Any]]


def marked(path: Path) -> Any:
    """A runner of the ONNX model with every tensor as an output, float16 ones truly rounded."""
    from polygraphy import constants
    from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs, onnx_from_path
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    from scripts.graphs.half_rounding import rounded

    everything = ModifyOutputs(rounded(onnx_from_path(str(path))), outputs=constants.MARK_ALL)
    return OnnxrtRunner(SessionFromOnnx(BytesFromOnnx(everything), providers=["cpu"]))


def plain(path: Path) -> Any:
    """A runner of the model as it is, on the CPU."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    return OnnxrtRunner(SessionFromOnnx(str(path), providers=["cpu"]))


def infer(runner: Any, batch: Batch) -> Outputs:
    """All outputs, copied: the runner gives views of buffers that its next call overwrites."""
    rows = {name: np.ascontiguousarray(array) for name, array in batch.items()}
    return {name: np.array(array) for name, array in runner.infer(rows).items()}


def quiet() -> None:
    """Polygraphy's own log off: what it raises says it all."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
