"""The pytorch backend in Python: serves TorchScript of `backend: "pytorch"` as NVIDIA's native one does.

Inputs are named like the arguments of forward(), or NAME__<index>; outputs NAME__<index>. TorchScript
says neither types nor shapes, so a wrong one is found by a request, as in the native backend. Unlike
that one it refuses names of any other form, where that one goes by the order in the configuration, and
a model that was saved in training mode, whose dropout that one runs.
"""

import re
from typing import Any

import numpy as np
import stand_in  # type: ignore[import-not-found]
import torch

NUMPY = {
    "TYPE_BOOL": np.bool_, "TYPE_UINT8": np.uint8, "TYPE_INT8": np.int8, "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32, "TYPE_INT64": np.int64, "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32, "TYPE_FP64": np.float64,
}  # fmt: skip
INDEXED = re.compile(r".*?__(\d+)")


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once, then `execute` for each batch."""

    def initialize(self, args: dict[str, str]) -> None:
        self.config = config = stand_in.read_config(args)
        inputs = stand_in.tensors(config, "input", NUMPY)
        self.outputs = stand_in.tensors(config, "output", NUMPY)
        self.inference = stand_in.switch(config, "INFERENCE_MODE", True)
        _set_up_torch(config)
        kind, number = args["model_instance_kind"], args["model_instance_device_id"]
        self.device = torch.device(f"cuda:{number}" if kind == "GPU" else "cpu")
        self.module = _load(args, config, None if kind == "MODEL" else self.device)
        arguments = _arguments(self.module, config, len(inputs))
        names = [one.name for one in inputs]
        self.order = (
            {name: arguments.index(name) for name in names}
            if set(names) <= set(arguments)
            else _indices("input", names, len(arguments), f"forward() takes {', '.join(arguments)}")
        )
        self.indices = _indices("output", [one.name for one in self.outputs], None, "")

    def execute(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = stand_in.respond(
            requests, self.config, self.outputs, NUMPY, self._run
        )
        return responses

    def _run(self, feed: dict[str, Any]) -> dict[str, Any]:
        given = [torch.from_numpy(feed[name]) for name in sorted(feed, key=self.order.__getitem__)]
        with torch.inference_mode(self.inference), torch.no_grad():
            try:
                result = self.module(*(tensor.to(self.device) for tensor in given))
            except Exception as error:
                raise RuntimeError(f"PyTorch execute failure: {str(error).strip()}") from None
            return self._named(result if isinstance(result, tuple) else (result,))

    def _named(self, results: tuple[Any, ...]) -> dict[str, Any]:
        found = {}
        for name, index in self.indices.items():
            if index >= len(results):
                raise ValueError(
                    f"The output {name} in the model configuration refers to an output index which "
                    f"doesn't exist. This model has {len(results)} outputs"
                )
            if not isinstance(results[index], torch.Tensor):
                raise ValueError(
                    "output must be of type Tensor or Tuple of them. It should not be a List / "
                    "Dictionary of Tensors or a Scalar"
                )
            if not results[index].ndim:
                raise ValueError(f"output '{name}' is a scalar which is not supported.")
            found[name] = results[index].cpu().numpy()
        return found


def _set_up_torch(config: dict[str, Any]) -> None:
    """The native backend's parameters; what is not given stays as torch has it."""
    torch._C._set_graph_executor_optimize(
        not stand_in.switch(config, "DISABLE_OPTIMIZED_EXECUTION", False)
    )
    torch.backends.cudnn.enabled = not stand_in.switch(config, "DISABLE_CUDNN", False)
    for key, setter in (
        ("ENABLE_TENSOR_FUSER", torch._C._jit_set_texpr_fuser_enabled),
        ("ENABLE_JIT_PROFILING", torch._C._jit_set_profiling_mode),
        ("ENABLE_JIT_EXECUTOR", torch._C._jit_set_profiling_executor),
    ):
        if stand_in.parameter(config, key) is not None:
            setter(stand_in.switch(config, key, True))
    for key in ("ENABLE_WEIGHT_SHARING", "ENABLE_CACHE_CLEANING"):
        stand_in.switch(config, key, False)  # each instance has a process of its own here
    intra = stand_in.whole_number(config, "INTRA_OP_THREAD_COUNT", 0)
    inter = stand_in.whole_number(config, "INTER_OP_THREAD_COUNT", 0)
    if intra > 0:
        torch.set_num_threads(intra)
    if inter > 0:
        torch.set_num_interop_threads(inter)


def _load(args: dict[str, str], config: dict[str, Any], device: torch.device | None) -> Any:
    path = stand_in.model_file(args, config, "model.pt")
    try:
        module = torch.jit.load(path, map_location=device)
    except Exception as error:
        raise stand_in.refuse(
            f"failed to load model '{config['name']}': {str(error).strip()}"
        ) from None
    if getattr(module, "training", False):
        raise stand_in.refuse(
            f"the TorchScript of model '{config['name']}' was saved in training mode, and would run "
            "so; call eval() before it is traced or scripted"
        )
    return module


def _arguments(module: Any, config: dict[str, Any], count: int) -> list[str]:
    """The names of the arguments of forward(), which must all be tensors, `count` of them."""
    schema = module.forward.schema.arguments
    arguments = [one for one in schema if one.type.kind() != "ClassType"]
    for one in arguments:
        if one.type.kind() != "TensorType":
            raise stand_in.refuse(
                f"An input of type '{one.type}' was detected in the model. Only input(s) of type "
                "Tensor are supported."
            )
    if len(arguments) != count:
        raise stand_in.refuse(
            f"unable to load model '{config['name']}', configuration expects {count} inputs, model "
            f"provides {len(arguments)}"
        )
    return [one.name for one in arguments]


def _indices(kind: str, names: list[str], count: int | None, also: str) -> dict[str, int]:
    """NAME__<index> -> index, each below `count` where that is known, and no two the same."""
    found: dict[str, int] = {}
    for name in names:
        match = INDEXED.fullmatch(name)
        index = int(match[1]) if match else -1
        if index < 0 or index in found.values() or (count is not None and index >= count):
            raise stand_in.refuse(
                f"{kind} '{name}' does not follow <name>__<index> naming convention"
                f"{', and ' + also if also else ''}."
            )
        found[name] = index
    return found
