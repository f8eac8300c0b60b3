"""The last step of <case>_verdict in Triton: raw output to logit, verdict and threshold.

publish_model copies this file as model.py, with heads.py beside it: the function that computes the
logit in evaluation. The threshold, the head and the positive class stand in this model's own
config.pbtxt. Runs in Triton's Python backend.
"""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from heads import log_odds


class TritonPythonModel:
    """raw (n, k) float32 -> logit (n, 1) float32, verdict (n, 1) bool, threshold (n, 1) float64."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        told = {key: value["string_value"] for key, value in parameters.items()}
        self.threshold = np.float64(told["threshold"])
        self.head, self.positive_class = told["head"], int(told["positive_class"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """The response to one request; a request that cannot be answered gets the reason."""
        raw = pb_utils.get_input_tensor_by_name(request, "raw").as_numpy()
        try:
            # As evaluation does: computed in float64, kept as float32, compared in float64.
            logit = log_odds(raw, self.head, self.positive_class).astype(np.float32)
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        verdict = np.isfinite(logit) & (logit >= self.threshold)
        tensors = {"logit": logit, "verdict": verdict,
                   "threshold": np.full(len(logit), self.threshold)}  # fmt: skip
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, values[:, None]) for name, values in tensors.items()]
        )
