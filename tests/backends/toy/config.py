"""What the toy backend is told in config.pbtxt."""

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.case.read_case import Case
from scripts.graphs.ends import Ends, onnx_ends

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

PORTABLE = 3


def ends(case: Case, model: Path) -> Ends:
    """Inputs and outputs, from the file itself."""
    return onnx_ends(model)


def complete(config: "ModelConfig", gpu: bool) -> dict[str, str]:
    """It is told that it is one."""
    config.parameters["toy"].string_value = "yes"
    return {"parameters": "What the backend checks when it is loaded."}
