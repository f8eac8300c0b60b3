"""What Triton's ONNX Runtime backend is told in config.pbtxt, beside what every model is told."""

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.case.read_case import Case
from scripts.graphs.ends import Ends, onnx_ends

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

PORTABLE = 0  # the lower, the more machines run it


def ends(case: Case, model: Path) -> Ends:
    """Inputs and outputs, from the ONNX file itself."""
    return onnx_ends(model)


def complete(config: "ModelConfig", gpu: bool) -> dict[str, str]:
    """Add this backend's part; why each field is there, by its name."""
    if not gpu:
        return {}
    config.parameters["cudnn_conv_algo_search"].string_value = "1"
    accelerators = config.optimization.execution_accelerators
    accelerators.gpu_execution_accelerator.add(name="cuda").parameters["use_tf32"] = "0"
    return {
        "parameters": "cudnn_conv_algo_search 1 is HEURISTIC. Without it convolution algorithms are "
        "timed at each load, and the results would change from one load to the next.",
        "optimization": "Without use_tf32 0 the GPU may compute in TF32, which is less than true "
        "float32.",
    }
