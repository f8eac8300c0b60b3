"""What the Python-based backends have in common: reading the configuration, and batches.

They stand in for NVIDIA's native backends, so they refuse what those refuse, in their words (sources:
onnxruntime.cc, model_state.cc and model_instance_state.cc of triton-inference-server's backends). Copied beside each
model.py; Triton's stub is an isolated interpreter, so nothing is imported from scripts, and text
that is printed is ASCII.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Read when PyTorch is loaded, which is after this: its idle threads leave the processors to the server.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Config = dict[str, Any]
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Tensor:
    """One input or output of config.pbtxt; `dims` without the batch, as the model sees them."""

    name: str
    data_type: str  # TYPE_FP32, ...
    dims: list[int]


def refuse(message: str) -> Exception:
    """To be raised: Triton gives the message as the reason why the model is not loaded."""
    exception: Exception = pb_utils.TritonModelException(message)
    return exception


def read_config(args: dict[str, str]) -> Config:
    """The configuration, if it asks only for what is served here."""
    config: Config = json.loads(args["model_config"])
    asked = [key for key in ("sequence_batching", "batch_input", "batch_output") if config.get(key)]
    asked += ["model_transaction_policy"] if _decoupled(config) else []
    for kind in ("input", "output"):
        if not config[kind]:
            raise refuse(
                f"model configuration must contain at least one {kind}, none were specified."
            )
        keys = ("allow_ragged_batch", "optional", "is_shape_tensor", "is_non_linear_format_io")
        asked += [key for key in keys for io in config[kind] if io.get(key)]
    if asked:
        raise refuse(f"{asked[0]} is not served by the local mode's backends; use MODE=docker")
    return config


def _decoupled(config: Config) -> bool:
    return bool(config.get("model_transaction_policy", {}).get("decoupled"))


def tensors(config: Config, kind: str, types: Any) -> list[Tensor]:
    """The "input" or "output" of the configuration, whose types must be among `types`."""
    found = []
    for io in config[kind]:
        if io["data_type"] not in types:
            raise refuse(
                f"unsupported datatype {io['data_type']} for {kind} '{io['name']}' for model "
                f"'{config['name']}'"
            )
        dims = io["reshape"]["shape"] if "reshape" in io else io["dims"]
        found.append(Tensor(io["name"], io["data_type"], list(dims)))
    return found


def model_file(args: dict[str, str], config: Config, name: str) -> str:
    """The path of the model in its version folder."""
    file = config.get("default_model_filename") or name
    path = os.path.join(args["model_repository"], args["model_version"], file)
    if os.path.isdir(path):
        path = os.path.join(path, name)
    if not os.path.exists(path):
        raise refuse(f"unable to find '{path}' for model instance '{config['name']}'")
    return path


def parameter(config: Config, key: str) -> str | None:
    """A parameter's text. The native backends overlook those they do not know, and so is done here."""
    value = config.get("parameters", {}).get(key)
    return None if value is None else value["string_value"]


def whole_number(config: Config, key: str, default: int) -> int:
    """A parameter that is a whole number."""
    text = parameter(config, key)
    try:
        return default if text is None else int(text)
    except ValueError:
        raise refuse(f"failed to convert '{text}' to integral number") from None


def switch(config: Config, key: str, default: bool) -> bool:
    """A parameter that is on or off."""
    text = parameter(config, key)
    known = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    if text is None:
        return default
    if text.lower() not in known:
        raise refuse(f"failed to convert '{text}' to boolean")
    return known[text.lower()]


def respond(
    requests: list[Any], config: Config, outputs: list[Tensor], types: dict[str, Any],
    run: Callable[[Arrays], Arrays],
) -> list[Any]:  # fmt: skip
    """One response for each request, from one run over the rows of all of them.

    That is what a native backend makes of the requests that dynamic batching puts together. `run`
    gives the outputs by name; `types` is the NumPy type of each Triton type.
    """
    batched = config["max_batch_size"] > 0
    groups = [requests] if batched else [[request] for request in requests]
    return [
        response
        for group in groups
        for response in _respond(group, batched, config, outputs, types, run)
    ]


def _respond(
    requests: list[Any], batched: bool, config: Config, outputs: list[Tensor],
    types: dict[str, Any], run: Callable[[Arrays], Arrays],
) -> list[Any]:  # fmt: skip
    try:
        columns = {io["name"]: _column(requests, io["name"]) for io in config["input"]}
        sizes = [len(rows) if batched else 1 for rows in next(iter(columns.values()))]
        results = run({name: _joined(column) for name, column in columns.items()})
        for one in outputs:
            _check_output(one, results[one.name], sum(sizes) if batched else None, types)
        ends = np.cumsum(sizes)
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, rows[end - size : end] if batched else rows)
                    for name, rows in results.items()
                ]
            )
            for size, end in zip(sizes, ends, strict=True)
        ]
    except Exception as error:
        words = str(error).strip()
        return [pb_utils.InferenceResponse([], pb_utils.TritonError(words)) for _ in requests]


def _column(requests: list[Any], name: str) -> list[Any]:
    return [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]


def _joined(column: list[Any]) -> Any:
    return column[0] if len(column) == 1 else np.concatenate(column)


def _check_output(one: Tensor, rows: Any, size: int | None, types: dict[str, Any]) -> None:
    """The rows are as many as went in, and as the configuration says."""
    if rows.dtype != types[one.data_type]:
        provided = {np.dtype(kind): name for name, kind in types.items()}
        raise ValueError(
            f"configuration expects datatype {one.data_type} for output '{one.name}', model "
            f"provides {provided.get(rows.dtype, rows.dtype.name)}"
        )
    if size is not None and rows.shape[:1] != (size,):
        raise ValueError(
            f"failed to split the output tensor '{one.name}' in responses: expected batch size of "
            f"{size} in model output, got {rows.shape[0] if rows.ndim else 'a scalar'}"
        )
    shape = list(rows.shape[0 if size is None else 1 :])
    if len(shape) != len(one.dims) or any(
        wanted not in (-1, found) for wanted, found in zip(one.dims, shape, strict=True)
    ):
        raise ValueError(
            f"the model gives output '{one.name}' of shape {shape} and the model configuration "
            f"specifies {one.dims}"
        )
