"""The int8 form of a graph: written from the ranges that calibration found, and as TensorRT takes it.

Activations are uint8 around 128, weights int8 per channel, biases int32 in steps of the products
(why: scripts/backends/onnxruntime/convert_int8.py). Which tensors become int8 is decided in scripts/graphs/int8_flow.py.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scripts.graphs.int8_flow import WEIGHTED, Flow, named, plan

if TYPE_CHECKING:
    import onnx

LARGEST = 127  # of int8, symmetric: TensorRT takes no other zero point than 0
MIDDLE = 128  # the zero point of uint8 that stands for int8's 0
BIAS_STEPS = 2.0**30  # at most, of a bias: int32 with room for the products
NOTES = ("calibration_method", "calibration_samples", "calibration_rows_sha256")
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Ranges:
    """What calibration found: all that `quantize` needs besides the model."""

    nodes: tuple[str, ...]  # that int8 can compute, in graph order
    largest: dict[str, float]  # tensor -> its largest absolute value
    samples: int
    weight_limit: int  # weights become -weight_limit..weight_limit


def quantize(
    model: "onnx.ModelProto", ranges: Ranges, keep: frozenset[str] = frozenset()
) -> "onnx.ModelProto":
    """The model with int8 inside, and the nodes named in `keep` as they were, on unrounded inputs.

    Inputs and outputs stay float32. The same arguments give the same bytes. Raises ValueError for a
    name in `keep` that is not one of `ranges.nodes`.
    """
    if unknown := sorted(keep - set(ranges.nodes)):
        raise ValueError(f"{unknown} are to be kept, and only {list(ranges.nodes)} are quantised")
    model = named(model)
    flow = Flow(model.graph)
    edges, writer = plan(flow, ranges.nodes, keep), Writer(flow, ranges)
    for node in flow.nodes:
        written = type(node).FromString(node.SerializeToString())
        for i, name in enumerate(node.input):
            if node.name in edges.get(name, ()):
                written.input[i] = writer.activation(name)
        if node.op_type in WEIGHTED and node.name in ranges.nodes and node.name not in keep:
            writer.weights(written, float(writer.step(flow.taken(node)[0])))
        writer.nodes.append(written)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.tensors)
    return without_unused(model)


class Writer:
    """Collects the nodes of the quantised graph in order, and the tensors that they need."""

    def __init__(self, flow: Flow, ranges: Ranges) -> None:
        self.flow, self.ranges = flow, ranges
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.written: dict[tuple[Any, ...], str] = {}

    def step(self, name: str) -> np.float32:
        """The scale of an activation: what one step of its int8 values is worth."""
        step = self.ranges.largest[self.flow.scaled_as(name)] / LARGEST
        return np.float32(step if step >= TINY else 1)

    def activation(self, name: str) -> str:
        """The tensor rounded: QuantizeLinear and DequantizeLinear, once for all that take it."""
        if (key := (name,)) not in self.written:
            step = self.parameters(name, np.asarray(self.step(name)), np.uint8)
            whole = self.add("QuantizeLinear", name, [name, *step])
            self.written[key] = self.add("DequantizeLinear", name, [whole, *step])
        return self.written[key]

    def weights(self, node: "onnx.NodeProto", step: float) -> None:
        """int8 for the stored matrix of a node, and int32 for its bias, in steps of the products.

        `step` is the scale of the activation that it multiplies.
        """
        from onnx import numpy_helper

        stored = self.flow.stored
        for i in [i for i, name in enumerate(node.input[:2]) if name in stored]:
            name, axis = node.input[i], weight_axis(node, i, stored)
            values = numpy_helper.to_array(stored[name]).astype(np.float64)
            if not np.isfinite(values).all():
                raise ValueError(f"the weights {name!r} hold NaN or infinity")
            others = tuple(one for one in range(values.ndim) if one != axis)
            largest = np.abs(values).max(axis=None if axis is None else others, initial=0.0)
            scale = largest / self.ranges.weight_limit
            bias = self.bias(node, scale.shape)
            if bias is not None:  # a channel of zeros, too, has a bias, which has to fit into int32
                scale = np.maximum(scale, np.abs(bias) / BIAS_STEPS / step)
            scale = np.where(scale >= TINY / min(1.0, step), scale, 1.0).astype(np.float32)
            node.input[i] = self.constant(name, values, scale, np.int8, axis)
            if bias is not None:
                product = (np.float32(step) * scale).astype(np.float32)
                node.input[2] = self.constant(node.input[2], bias, product, np.int32, 0)

    def bias(self, node: "onnx.NodeProto", shape: tuple[int, ...]) -> NDArray[np.float64] | None:
        """The bias, where it has one value for each channel; others stay float32."""
        from onnx import numpy_helper

        stored = self.flow.stored
        if node.op_type == "MatMul" or len(node.input) < 3 or node.input[2] not in stored:
            return None
        factors = [one.f for one in node.attribute if one.name in ("alpha", "beta")]
        values = numpy_helper.to_array(stored[node.input[2]]).astype(np.float64)
        return values if values.shape == shape and set(factors) <= {1.0} else None

    def constant(
        self, name: str, values: NDArray[np.float64], scale: NDArray[np.float32],
        kind: type[np.integer[Any]], axis: int | None,
    ) -> str:  # fmt: skip
        """A stored tensor as integers and DequantizeLinear; nodes that share it share the integers."""
        from onnx import numpy_helper

        if (key := (name, axis, scale.tobytes())) not in self.written:
            same = sum(one[0] == name and len(one) == 3 for one in self.written)
            unique = f"{name}_{same}" if same else name
            limit = self.ranges.weight_limit if kind is np.int8 else np.iinfo(np.int32).max
            shape = [-1 if one == axis else 1 for one in range(values.ndim)]
            steps = np.rint(values / scale.astype(np.float64).reshape(shape if scale.ndim else ()))
            whole = np.clip(steps, -limit, limit).astype(kind)
            self.tensors.append(numpy_helper.from_array(whole, f"{unique}_quantized"))
            inputs = [f"{unique}_quantized", *self.parameters(unique, scale, kind)]
            self.written[key] = self.add("DequantizeLinear", unique, inputs, axis)
        return self.written[key]

    def parameters(self, name: str, scale: NDArray[Any], kind: type[np.integer[Any]]) -> list[str]:
        """Store a scale and its zero point."""
        from onnx import numpy_helper

        zero = np.full(scale.shape, MIDDLE if kind is np.uint8 else 0, kind)
        self.tensors.append(numpy_helper.from_array(scale, f"{name}_scale"))
        self.tensors.append(numpy_helper.from_array(zero, f"{name}_zero_point"))
        return [f"{name}_scale", f"{name}_zero_point"]

    def add(self, kind: str, name: str, inputs: list[str], axis: int | None = None) -> str:
        """Write a node, and name its output after it."""
        from onnx import helper

        node = helper.make_node(kind, inputs, [f"{name}_{kind}_Output"], f"{name}_{kind}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
        return node.output[0]


def weight_axis(
    node: "onnx.NodeProto", index: int, stored: dict[str, "onnx.TensorProto"]
) -> int | None:
    """Along which axis of its weights a node has its output channels; None: one scale for all."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return 1 if index == 1 and len(stored[node.input[1]].dims) == 2 else None


def note(model: "onnx.ModelProto", rows: NDArray[np.int64]) -> "onnx.ModelProto":
    """The model, which now says what calibrated it."""
    digest = hashlib.sha256(np.asarray(rows).astype("<i8").tobytes()).hexdigest()
    for key, value in zip(NOTES, ("MinMax", str(len(rows)), digest), strict=True):
        model.metadata_props.add(key=key, value=value)
    return model


def without_unused(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Without the stored tensors that no node takes any more."""
    from scripts.graphs.fp16_passes import graphs

    used = {value.name for graph in graphs(model.graph) for value in graph.output}
    used |= {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name not in used:
            del model.graph.initializer[i]
    return model
