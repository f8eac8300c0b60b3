"""A float16 ONNX model as a float32 one that rounds every float16 tensor: true half on a CPU.

ONNX Runtime's CPU provider computes float16 nodes in float32 and drops the rounding between them, so
it hides cancellation and overflow that a GPU shows. Here each float16 tensor is stored through a Cast
to float16 and back, which it keeps. Sums inside a node stay float32, as on a tensor core.
"""

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
    shape_inference,
)

from scripts.graphs.fp16_passes import FLOAT, FLOAT16, cast_to, element_types, graphs


def rounded(model: ModelProto) -> ModelProto:
    """A copy with the same tensor names, all float32; each that was float16 holds float16 values."""
    copy = ModelProto()
    copy.CopyFrom(shape_inference.infer_shapes(model))
    types = element_types(copy.graph)
    for graph in graphs(copy.graph):
        for tensor in graph.initializer:
            _widen(tensor)
        nodes = []
        for value in graph.input:
            if value.type.tensor_type.elem_type == FLOAT16:
                nodes.append(_take_input(graph, value.name))
        for node in graph.node:
            nodes += _round_outputs(node, types)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]
        for value in graph.output:
            if value.type.tensor_type.elem_type == FLOAT16:
                value.type.tensor_type.elem_type = FLOAT
    return copy


def _round_outputs(node: NodeProto, types: dict[str, int]) -> list[NodeProto]:
    """The node in float32, and for each of its float16 outputs a Cast there and back."""
    for attribute in node.attribute:
        if attribute.t.data_type == FLOAT16:
            _widen(attribute.t)
        if attribute.name == "dtype" and attribute.i == FLOAT16:
            attribute.i = FLOAT
    if node.op_type == "Cast" and cast_to(node) == FLOAT16:
        node.attribute[0].i = FLOAT
    after = []
    for i, name in enumerate(node.output):
        if types.get(name) == FLOAT16:
            exact, half = f"{name}_exact", f"{name}_half"
            node.output[i] = exact
            after += [
                helper.make_node("Cast", [exact], [half], half, to=FLOAT16),
                helper.make_node("Cast", [half], [name], f"{name}_rounded", to=FLOAT),
            ]
    return [node, *after]


def _take_input(graph: GraphProto, name: str) -> NodeProto:
    """A float16 input of the graph, cast to float32 for all that use it."""
    wide = f"{name}_float32"
    for inner in graphs(graph):
        for node in inner.node:
            for i, used in enumerate(node.input):
                if used == name:
                    node.input[i] = wide
    return helper.make_node("Cast", [name], [wide], f"{wide}_cast", to=FLOAT)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
