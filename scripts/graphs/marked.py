"""An ONNX model with every tensor as an output, run by ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scripts.data.samples import Batch
from scripts.graphs.session import default_threads, open_session

Outputs = dict[str, NDArray[Any]]  # by tensor
Inner = Callable[[Batch], Outputs]


def marked(path: Path) -> Inner:
    """The ONNX model with every tensor as an output, float16 ones truly rounded, on the CPU."""
    from polygraphy import constants
    from polygraphy.backend.onnx import ModifyOutputs, onnx_from_path

    from scripts.graphs.half_rounding import rounded

    everything = ModifyOutputs(rounded(onnx_from_path(str(path))), outputs=constants.MARK_ALL)
    return opened(everything().SerializeToString())


def plain(path: Path) -> Inner:
    """The model as it is, on the CPU."""
    return opened(path)


def opened(model: Path | bytes) -> Inner:
    """ONNX Runtime itself: polygraphy's runner would import PyTorch."""
    session = open_session(model, "cpu", default_threads())
    names = [one.name for one in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(names, batch), strict=True))


def quiet() -> None:
    """Polygraphy's own log off: what it raises says it all."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
