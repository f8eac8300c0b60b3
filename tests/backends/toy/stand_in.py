"""The toy backend: it serves what says that it is for it, and nothing else."""

from typing import Any

import numpy as np
import onnxruntime
import stand_in  # type: ignore[import-not-found]

NUMPY = {"TYPE_FP32": np.float32}


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        self.config = stand_in.read_config(args)
        if stand_in.parameter(self.config, "toy") != "yes":
            raise stand_in.refuse("not for the toy backend")
        self.outputs = stand_in.tensors(self.config, "output", NUMPY)
        path = stand_in.model_file(args, self.config, "model.onnx")
        self.session = onnxruntime.InferenceSession(path)
        if self.session.get_modelmeta().custom_metadata_map.get("for") != "toy":
            raise stand_in.refuse("the file is not for the toy backend")

    def execute(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = stand_in.respond(
            requests, self.config, self.outputs, NUMPY, self.run
        )
        return responses

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        names = [one.name for one in self.outputs]
        return dict(zip(names, self.session.run(names, feed), strict=True))
