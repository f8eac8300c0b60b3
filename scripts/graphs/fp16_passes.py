"""What onnxconverter-common leaves broken, mended in the graph before and after it.

Each pass works on one graph and is called for subgraphs too (`graphs`). Why each is needed stands
in its first line; the order in which they run stands in convert_fp16.convert. `blocked` are the
names of all nodes that stay float32: of operators that always do, and of those that a caller keeps,
of which scripts/graphs/fp16_keep.py takes care.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
TINY_KEY = "values_below_float16"  # in the metadata of the ONNX file
# Operators without a float16 form in opset 18 or in ONNX Runtime, beyond the converter's own list.
FLOAT32_ONLY = ("EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike", "HannWindow",
                "HammingWindow", "BlackmanWindow", "QuantizeLinear", "DequantizeLinear")  # fmt: skip
IDLE = ("Constant", "Identity", "Cast", "Shape", "Size")  # do not compute in floating point


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """This graph and all those inside it, outermost first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def element_types(graph: GraphProto) -> dict[str, int]:
    """Element type of every tensor that is known, by name, subgraphs included."""
    types = {}
    for inner in graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info):
            types[value.name] = value.type.tensor_type.elem_type
        for tensor in inner.initializer:
            types[tensor.name] = tensor.data_type
    return types


def name_nodes(graph: GraphProto) -> None:
    """The converter names its Casts after the nodes: without names of their own they collide."""
    taken: Counter[str] = Counter()
    for inner in graphs(graph):
        for node in inner.node:
            name = node.name or f"{node.op_type}_{node.output[0]}"
            while taken[name]:
                name += "_"
            taken[name] += 1
            node.name = name


def drop_idle_casts(graph: GraphProto, types: dict[str, int]) -> None:
    """A Cast from float to float does nothing, and the converter would pair it with its own.

    `types` gives the element type of tensors by name (from shape inference).
    """
    for node in graph.node:
        if node.op_type == "Cast" and cast_to(node) == FLOAT and types.get(node.input[0]) == FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]


def write_constants(graph: GraphProto) -> None:
    """The converter sees only tensor attributes: not value_float(s), nor a default of 0."""
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value_float":
                    value = np.array(attribute.f, np.float32)
                elif attribute.name == "value_floats":
                    value = np.array(attribute.floats, np.float32)
                else:
                    continue
                tensor = helper.make_attribute("value", numpy_helper.from_array(value))
                attribute.CopyFrom(tensor)
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            node.attribute.append(helper.make_attribute("value", zero))


def separate_outputs(graph: GraphProto, blocked: set[str]) -> None:
    """An output that is also used inside would be float32 for one and float16 for the other.

    One that a node of `blocked` gives would become float16: the converter casts it back.
    """
    used = {name for inner in graphs(graph) for node in inner.node for name in node.input}
    used |= {name for node in graph.node if node.name in blocked for name in node.output}
    used -= {tensor.name for tensor in graph.initializer}  # a constant output converts as it is
    for output in graph.output:
        if output.name in used:
            inside = output.name + "_inside"
            for inner in graphs(graph):
                for node in inner.node:
                    _rename(node.input, output.name, inside)
            for node in graph.node:
                _rename(node.output, output.name, inside)
            identity = helper.make_node("Identity", [inside], [output.name], f"{inside}_identity")
            graph.node.append(identity)


def split_shared(graph: GraphProto, blocked: set[str]) -> None:
    """An initializer used by a node that stays float32 and one that does not: one copy for each."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[str, set[bool]] = {name: set() for name in stored}
    for inner in graphs(graph):
        for node in inner.node:
            for name in node.input:
                if name in users:
                    users[name].add(node.name in blocked)
    for name in [name for name, kinds in users.items() if len(kinds) == 2]:
        copy = graph.initializer.add()
        copy.CopyFrom(stored[name])
        copy.name = name + "_float32"
        for inner in graphs(graph):
            for node in inner.node:
                if node.name in blocked:
                    _rename(node.input, name, copy.name)


def separate_captured(graph: GraphProto, blocked: set[str]) -> None:
    """The converter does not look from a subgraph into the graph around it.

    An input that a subgraph takes gets an Identity outside; what a node of `blocked` takes from
    outside gets an Identity, or a copy of the initializer, beside that node. What passes from one
    node of `blocked` to another and into a subgraph gets an Identity too: the converter would drop
    the Cast between the two, and with it the tensor that the subgraph takes.
    """
    inside = {
        name for inner in list(graphs(graph))[1:] for node in inner.node for name in node.input
    }
    for value in graph.input:
        if value.name in inside and value.type.tensor_type.elem_type == FLOAT:
            name = value.name + "_inside"
            for inner in graphs(graph):
                for node in inner.node:
                    _rename(node.input, value.name, name)
            graph.node.insert(
                0, helper.make_node("Identity", [value.name], [name], f"{name}_identity")
            )
    taken = {name for node in graph.node if node.name in blocked for name in node.input} & inside
    for node in [node for node in graph.node if node.name in blocked]:
        for name in [name for name in node.output if name in taken]:
            for inner in list(graphs(graph))[1:]:
                for user in inner.node:
                    _rename(user.input, name, f"{name}_captured")
            names = [name], [f"{name}_captured"], f"{name}_captured_identity"
            graph.node.append(helper.make_node("Identity", *names))
    stored = {tensor.name: tensor for inner in graphs(graph) for tensor in inner.initializer}
    for number, inner in enumerate(list(graphs(graph))[1:]):
        own = {name for node in inner.node for name in node.output}
        own |= {value.name for value in (*inner.input, *inner.initializer)}
        for node in [node for node in inner.node if node.name in blocked]:
            for name in {name for name in node.input if name} - own:
                copy = f"{name}_within_{number}"
                if copy not in own:
                    own.add(copy)
                    if name in stored:
                        inner.initializer.add().CopyFrom(stored[name])
                        inner.initializer[-1].name = copy
                    else:
                        inner.node.insert(
                            0, helper.make_node("Identity", [name], [copy], f"{copy}_identity")
                        )
                _rename(node.input, name, copy)


def cast_statistics(graph: GraphProto, blocked: set[str]) -> None:
    """LayerNormalization gives its mean and deviation in float32 whatever its input is."""
    for inner in graphs(graph):
        norms = [node for node in inner.node if node.op_type == "LayerNormalization"]
        for node in [node for node in norms if node.name not in blocked]:
            for i, name in enumerate(node.output):
                if i and name:
                    node.output[i] = name + "_float32"
                    inner.node.append(
                        helper.make_node(
                            "Cast", [node.output[i]], [name], f"{name}_cast", to=FLOAT16
                        )
                    )


def retype_casts(graph: GraphProto, original: set[str], blocked: set[str]) -> None:
    """The converter leaves `to` and `dtype` at float32 where its own types now say float16.

    `original` are the nodes of the graph before the conversion: its own Casts stay as they are.
    """
    for inner in graphs(graph):
        for node in inner.node:
            if node.name in original and node.name not in blocked:
                for attribute in node.attribute:
                    is_type = attribute.name == ("to" if node.op_type == "Cast" else "dtype")
                    if is_type and attribute.i == FLOAT:
                        attribute.i = FLOAT16


def sort_nodes(graph: GraphProto) -> None:
    """Nodes after what they use, in subgraphs too: the converter appends its Casts at the end."""
    for node in graph.node:
        for inner in subgraphs(node):
            sort_nodes(inner)
    made = {name for node in graph.node for name in node.output}
    waiting = [(node, (_needs(node) & made)) for node in graph.node]
    ready: set[str] = set()
    ordered: list[NodeProto] = []
    while waiting:
        left = []
        for node, needs in waiting:
            if needs <= ready:
                ordered.append(node)
                ready.update(node.output)
            else:
                left.append((node, needs))
        if len(left) == len(waiting):
            raise ValueError(f"the graph has a cycle through {left[0][0].name!r}")
        waiting = left
    copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def walk(node: NodeProto) -> Iterator[NodeProto]:
    """The node and all in its subgraphs, in graph order."""
    yield node
    for inner in subgraphs(node):
        for one in inner.node:
            yield from walk(one)


def cast_to(node: NodeProto) -> int:
    """The element type a Cast gives."""
    return next(attribute.i for attribute in node.attribute if attribute.name == "to")


def _needs(node: NodeProto) -> set[str]:
    """Every tensor the node uses, those that its subgraphs take from outside among them."""
    return {name for name in node.input if name} | {
        name for inner in subgraphs(node) for one in inner.node for name in _needs(one)
    }


def _rename(names, old: str, new: str) -> None:  # type: ignore[no-untyped-def]
    for i, name in enumerate(names):
        if name == old:
            names[i] = new
