"""What Triton's PyTorch backend is told in config.pbtxt, beside what every model is told."""

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.case.read_case import Case
from scripts.files import read_json
from scripts.graphs.ends import End, Ends

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

PORTABLE = 1  # the lower, the more machines run it
OUTPUT = "output__0"  # the backend wants the position in the name


def ends(case: Case, model: Path) -> Ends:
    """Inputs as case.toml has them, the output as check_model saw it: `model` is its .check.json."""
    shape = tuple(read_json(model)["output_shape"])
    inputs = tuple(End(one.name, one.dtype, one.shape) for one in case.inputs)
    return Ends(inputs, (End(OUTPUT, "float32", shape),))


def complete(config: "ModelConfig", gpu: bool) -> dict[str, str]:
    """Add this backend's part; why each field is there, by its name."""
    config.platform = "pytorch_libtorch"
    config.parameters["DISABLE_OPTIMIZED_EXECUTION"].string_value = "true"
    config.parameters["INFERENCE_MODE"].string_value = "true"
    return {
        "parameters": "Without DISABLE_OPTIMIZED_EXECUTION the executor rewrites the graph after the "
        "first runs, and results change with it."
    }
