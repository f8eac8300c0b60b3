"""The onnxruntime backend in Python: serves models of `backend: "onnxruntime"` as NVIDIA's native one does.

It checks the configuration against the model, takes the parameters and execution accelerators that
the native one takes, and runs on the CPU, or by CUDA where onnxruntime-gpu is installed. Nothing
completes a configuration here: the server is started with --disable-auto-complete-config, and
without it this backend leaves the configuration as it is written.
"""

from typing import Any

import numpy as np
import onnxruntime
import stand_in  # type: ignore[import-not-found]

NUMPY = {
    "TYPE_BOOL": np.bool_, "TYPE_UINT8": np.uint8, "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32, "TYPE_UINT64": np.uint64, "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16, "TYPE_INT32": np.int32, "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64,
}  # fmt: skip
ONNX = {"float16": "TYPE_FP16", "float": "TYPE_FP32", "double": "TYPE_FP64"} | {
    name[5:].lower(): name for name in NUMPY if "FP" not in name
}  # "int64" of "tensor(int64)" -> Triton's type
LEVELS = {
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
MODES = [
    onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    onnxruntime.ExecutionMode.ORT_PARALLEL,
]
SEARCHES = ["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]
STRATEGIES = ["kNextPowerOfTwo", "kSameAsRequested"]
CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"


class TritonPythonModel:
    """One instance of a model; Triton calls `initialize` once, then `execute` for each batch."""

    def initialize(self, args: dict[str, str]) -> None:
        self.config = config = stand_in.read_config(args)
        inputs = stand_in.tensors(config, "input", NUMPY)
        self.outputs = stand_in.tensors(config, "output", NUMPY)
        self.session = _session(args, config)
        self.run_options = onnxruntime.RunOptions()
        key = "memory.enable_memory_arena_shrinkage"
        shrinkage = stand_in.parameter(config, key)
        if shrinkage is not None:
            self.run_options.add_run_config_entry(key, shrinkage)
        known = self.session.get_inputs()
        if len(known) != len(inputs):
            raise stand_in.refuse(
                f"unable to load model '{config['name']}', configuration expects {len(inputs)} "
                f"inputs, model provides {len(known)}"
            )
        for one in inputs:
            _compare(config, "input", one, known, exact=False)
        for one in self.outputs:
            _compare(config, "output", one, self.session.get_outputs(), exact=True)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = stand_in.respond(
            requests, self.config, self.outputs, NUMPY, self._run
        )
        return responses

    def _run(self, feed: dict[str, Any]) -> dict[str, Any]:
        for one in self.session.get_inputs():
            if not one.shape:  # a scalar, which the configuration can only call [ 1 ]
                feed[one.name] = feed[one.name].reshape(())
        names = [one.name for one in self.outputs]
        results = self.session.run(names, feed, self.run_options)
        pairs = zip(self.outputs, results, strict=True)
        return {one.name: rows if rows.ndim else rows.reshape(one.dims) for one, rows in pairs}


def _session(args: dict[str, str], config: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = LEVELS.get(
        level, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    )
    mode = stand_in.whole_number(config, "execution_mode", 0)
    if mode not in (0, 1):
        raise stand_in.refuse(
            "Invalid configuration value provided. Expected values for execution_mode are 0 or 1 "
            f"but got {mode} ."
        )
    options.execution_mode = MODES[mode]
    options.intra_op_num_threads = max(0, stand_in.whole_number(config, "intra_op_thread_count", 0))
    options.inter_op_num_threads = max(0, stand_in.whole_number(config, "inter_op_thread_count", 0))
    options.enable_cpu_mem_arena = stand_in.switch(config, "enable_mem_arena", True)
    options.enable_mem_pattern = stand_in.switch(config, "enable_mem_pattern", True)
    stand_in.switch(config, "share_session_between_instances", False)  # each has a process here
    key = "session.use_device_allocator_for_initializers"
    allocator = stand_in.parameter(config, key)
    if allocator is not None:
        options.add_session_config_entry(key, allocator)
    provider, settings = _provider(args, config)
    if provider not in onnxruntime.get_available_providers():
        raise stand_in.refuse(
            f"{provider} is asked for, and the ONNX Runtime of the local mode has only "
            f"{', '.join(onnxruntime.get_available_providers())}"
        )
    path = stand_in.model_file(args, config, "model.onnx")
    try:
        session = onnxruntime.InferenceSession(path, options, [provider], [settings])
    except Exception as error:  # its own exception types are not public
        raise stand_in.refuse(f"onnx runtime error: {str(error).strip()}") from None
    if session.get_providers()[0] != provider:
        raise stand_in.refuse(
            f"{provider} is asked for, and ONNX Runtime fell back to "
            f"{', '.join(session.get_providers())}"
        )
    return session


def _provider(args: dict[str, str], config: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The execution provider and its options, from the instance group and the accelerators."""
    asked = config.get("optimization", {}).get("execution_accelerators", {})
    gpu = {one["name"]: one for one in asked.get("gpu_execution_accelerator", [])}
    cpu = {one["name"]: one for one in asked.get("cpu_execution_accelerator", [])}
    # The native backend looks at those for the GPU only on a GPU; a wrong name is wrong before that.
    for name in [*(gpu.keys() - {"cuda", "tensorrt"}), *(cpu.keys() - {"openvino"})]:
        raise stand_in.refuse(f"unknown Execution Accelerator '{name}' is requested")
    if args["model_instance_kind"] != "GPU":
        return (OPENVINO if cpu else CPU), {}
    if "tensorrt" in gpu:
        raise stand_in.refuse(
            "the execution accelerator 'tensorrt' is not served by the local mode's backends; use "
            "MODE=docker"
        )
    settings = {
        "arena_extend_strategy": _choice(config, "arena_extend_strategy", STRATEGIES),
        "do_copy_in_default_stream": stand_in.parameter(config, "do_copy_in_default_stream") or "1",
        # Like the native one: EXHAUSTIVE unless a parameter says otherwise.
        "cudnn_conv_algo_search": _choice(config, "cudnn_conv_algo_search", SEARCHES),
    }
    limit = stand_in.parameter(config, "gpu_mem_limit")
    own = gpu.get("cuda", {}).get("parameters", {})
    return CUDA, {
        **own,
        **settings,
        **({} if limit is None else {"gpu_mem_limit": limit}),
        "device_id": args["model_instance_device_id"],
    }


def _choice(config: dict[str, Any], key: str, values: list[str]) -> str:
    number = stand_in.whole_number(config, key, 0)
    if number not in range(len(values)):
        raise stand_in.refuse(f"unsupported {key} value '{number}' is requested")
    return values[number]


def _compare(config: dict[str, Any], kind: str, one: Any, known: list[Any], exact: bool) -> None:
    """The configuration's tensor is the model's. `exact`: -1 in the model takes no other number."""
    name, found = config["name"], {tensor.name: tensor for tensor in known}
    if one.name not in found:
        raise stand_in.refuse(
            f"unexpected inference {kind} '{one.name}', allowed {kind}s are: "
            f"{', '.join(sorted(found))}"
        )
    provided = ONNX.get(found[one.name].type[len("tensor(") : -1], found[one.name].type)
    if provided != one.data_type:
        raise stand_in.refuse(
            f"unable to load model '{name}', configuration expects datatype {one.data_type} for "
            f"{kind} '{one.name}', model provides {provided}"
        )
    # ONNX Runtime names a dynamic dimension, or gives None.
    shape = [size if isinstance(size, int) else -1 for size in found[one.name].shape]
    batched = config["max_batch_size"] > 0
    if not shape and not batched:
        if any(size != 1 for size in one.dims):
            raise stand_in.refuse(
                f"unable to load model '{name}', scalar tensor '{one.name}', should only provide 1 "
                "in the model configuration when the model doesn't support batching. Model "
                f"configuration provided: {_text(one.dims)}."
            )
        return
    if batched and shape[:1] != [-1]:
        raise stand_in.refuse(
            f"model '{name}', tensor '{one.name}': for the model to support batching the shape "
            "should have at least 1 dimension and the first dimension must be -1; but shape "
            f"expected by the model is {_text(shape)}"
        )
    full = [-1, *one.dims] if batched else one.dims
    pairs = zip(shape, full, strict=False)
    if len(shape) != len(full) or any(m != c and (exact or m != -1) for m, c in pairs):
        how = (
            "dimensions (an initial batch dimension because max_batch_size > 0 followed by the "
            f"explicit tensor shape, making complete shape {_text(full)})"
            if batched
            else f"dimensions (shape {_text(full)})"
        )
        raise stand_in.refuse(
            f"model '{name}', tensor '{one.name}': the model expects {len(shape)} dimensions "
            f"(shape {_text(shape)}) but the model configuration specifies {len(full)} {how}"
        )


def _text(shape: list[int]) -> str:
    """A shape as Triton writes it."""
    return f"[{','.join(str(size) for size in shape)}]"
