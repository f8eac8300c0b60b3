"""What onnxconverter-common leaves broken, mended in the graph before and after it.

Each pass works on one graph and is called for subgraphs too (`graphs`). Why each is needed stands
in its first line. The order before the conversion: name_nodes, drop_idle_casts, write_constants,
separate_outputs, split_shared; after it: retype_casts, sort_nodes.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


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


def separate_outputs(graph: GraphProto) -> None:
    """An output that is also used inside would be float32 for one and float16 for the other."""
    used = {name for inner in graphs(graph) for node in inner.node for name in node.input}
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
    """An initializer used by a node that stays float32 and one that does not: one copy for each.

    `blocked` are operators that stay float32.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    users: dict[str, set[bool]] = {name: set() for name in stored}
    for inner in graphs(graph):
        for node in inner.node:
            for name in node.input:
                if name in users:
                    users[name].add(node.op_type in blocked)
    for name in [name for name, kinds in users.items() if len(kinds) == 2]:
        copy = graph.initializer.add()
        copy.CopyFrom(stored[name])
        copy.name = name + "_float32"
        for inner in graphs(graph):
            for node in inner.node:
                if node.op_type in blocked:
                    _rename(node.input, name, copy.name)


def retype_casts(graph: GraphProto, original: set[str], blocked: set[str]) -> None:
    """The converter leaves `to` and `dtype` at float32 where its own types now say float16.

    `original` are the nodes of the graph before the conversion: its own Casts stay as they are.
    """
    for inner in graphs(graph):
        for node in inner.node:
            if node.name in original and node.op_type not in blocked:
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
