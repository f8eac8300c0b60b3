"""What Triton's TensorRT backend is told in config.pbtxt, beside what every model is told."""

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.case.read_case import Case
from scripts.graphs.ends import Ends, onnx_ends

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

PORTABLE = 2  # the lower, the more machines run it


def ends(case: Case, model: Path) -> Ends:
    """Those of the ONNX file that the engine is built from; prove holds the engine to them."""
    return onnx_ends(model)


def complete(config: "ModelConfig", gpu: bool) -> dict[str, str]:
    """Nothing is added: number formats and algorithms are fixed in the engine."""
    return {}
