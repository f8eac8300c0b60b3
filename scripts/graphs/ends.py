"""The ends of a model: what goes in and what comes out, with the shape of one sample."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from scripts.case.keys import DTYPES


@dataclass(frozen=True)
class End:
    """One input or output. `dtype` is one of DTYPES; `shape` that of one sample, without the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Ends:
    """All inputs and all outputs of a model, in its own order."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]


def onnx_ends(model: Path) -> Ends:
    """As the ONNX file declares them; its weights are not read.

    Raises click.ClickException unless every end has one of DTYPES, a first axis without a number, which is
    the batch, and a number for every other.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    return Ends(
        tuple(_end(value, model) for value in graph.input),
        tuple(_end(value, model) for value in graph.output),
    )


def _end(value: Any, model: Path) -> End:
    tensor = value.type.tensor_type
    dtype = _dtype(value.name, tensor.elem_type, model)
    if not tensor.shape.dim:
        raise click.ClickException(f"{model}: {value.name!r} has no axes; the first is the batch.")
    first, *rest = tensor.shape.dim
    if first.dim_value:
        raise click.ClickException(
            f"{model}: the first axis of {value.name!r} is fixed at {first.dim_value}; Triton "
            "batches only a dynamic one."
        )
    if not all(axis.dim_value for axis in rest):
        raise click.ClickException(
            f"{model}: the shape of {value.name!r} is known only as "
            f"{[axis.dim_value or axis.dim_param for axis in tensor.shape.dim]}; all axes but the "
            "first must be numbers."
        )
    return End(value.name, dtype, tuple(axis.dim_value for axis in rest))


def _dtype(name: str, number: int, model: Path) -> str:
    """Which of DTYPES the number that ONNX gives a type stands for."""
    import onnx

    kinds = onnx.TensorProto.DataType
    numbers = {kinds.Value({"float32": "FLOAT"}.get(one, one.upper())): one for one in DTYPES}
    if number not in numbers:
        raise click.ClickException(
            f"{model}: {name!r} is {kinds.Name(number)}, which is none of {', '.join(DTYPES)}. "
            "Give it another type in the model."
        )
    return numbers[number]
