"""An ONNX model as TensorRT's parser takes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from scripts.graphs.int8_graph import MIDDLE, without_unused

if TYPE_CHECKING:
    import onnx


@contextmanager
def tensorrt_form(onnx_file: Path, precision: str) -> Iterator[Path]:
    """The ONNX as TensorRT takes it: a file beside it for a while where it is int8, else itself."""
    if precision != "int8":
        yield onnx_file
        return
    import onnx

    with TemporaryDirectory() as folder:
        form = Path(folder) / onnx_file.name
        onnx.save_model(for_tensorrt(onnx.load(onnx_file)), form)
        yield form


def for_tensorrt(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The same values in the form that TensorRT takes: zero points 0, and no integers but int8.

    Its parser refuses uint8, and DequantizeLinear of the int32 biases, which become float32.
    """
    from onnx import ModelProto, TensorProto, numpy_helper

    model, original = ModelProto(), model
    model.CopyFrom(original)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    left = []
    for node in model.graph.node:
        scaling = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        integers = stored.get(node.input[0]) if scaling else None
        if integers is not None and integers.data_type == TensorProto.INT32:
            values, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            exact = values.astype(np.float32) * scale
            model.graph.initializer.append(numpy_helper.from_array(exact, node.output[0]))
            continue
        left.append(type(node).FromString(node.SerializeToString()))
        if scaling and stored[node.input[2]].data_type == TensorProto.UINT8:
            zero = numpy_helper.to_array(stored[node.input[2]])
            if (zero != MIDDLE).any():
                raise ValueError(f"{node.name!r} has a zero point of {zero}, not {MIDDLE}")
            shifted = numpy_helper.from_array(np.zeros(zero.shape, np.int8), node.input[2])
            stored[node.input[2]].CopyFrom(shifted)
    del model.graph.node[:]
    model.graph.node.extend(left)
    return without_unused(model)
