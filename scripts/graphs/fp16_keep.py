"""Nodes left in float32 by choice: the passes before and after a conversion that keeps some.

`near` are the nodes kept and what lies between them (`neighbours`): there no float16 comes between
two float32 nodes. `blocked` are all that stay float32, as in scripts/graphs/fp16_passes.py; the order in
which the passes run stands in convert_fp16.convert.
"""

from collections.abc import Iterator

from onnx import GraphProto, NodeProto, helper

from scripts.graphs.fp16_passes import (
    FLOAT,
    FLOAT16,
    cast_to,
    element_types,
    graphs,
    subgraphs,
    walk,
)

Made = dict[str, NodeProto]  # the node that gives a tensor, by the tensor's name


def skip_identities(graph: GraphProto) -> None:
    """Nodes take what an Identity takes: else it would become float16 before a node that is kept."""
    for inner, made in scopes(graph):
        for node in inner.node:
            for i, name in enumerate(node.input):
                while name in made and made[name].op_type == "Identity":
                    name = made[name].input[0]
                node.input[i] = name


def neighbours(
    graph: GraphProto, kept: set[str], blocked: set[str], types: dict[str, int]
) -> set[str]:
    """`kept`, and the nodes of `blocked` and Casts of floats that hang together with one of them."""
    edges: dict[str, set[str]] = {}
    between = set()
    for inner, made in scopes(graph):
        for node in inner.node:
            kinds = {types.get(name) for name in (*node.input, *node.output)}
            floats = FLOAT in kinds and FLOAT16 not in kinds
            if node.name in blocked or (node.op_type == "Cast" and floats):
                between.add(node.name)
            for name in node.input:
                if name in made:
                    edges.setdefault(node.name, set()).add(made[name].name)
                    edges.setdefault(made[name].name, set()).add(node.name)
    found, waiting = set(kept), list(kept)
    while waiting:
        for name in edges.get(waiting.pop(), set()) & between - found:
            found.add(name)
            waiting.append(name)
    return found


def store_constants(graph: GraphProto, near: set[str]) -> None:
    """A Constant is float16 for all its users or for none: nodes of `near` get an initializer."""
    for inner, made in scopes(graph):
        own = {tensor.name for tensor in inner.initializer}
        for node in [node for node in inner.node if node.name in near]:
            for i, name in enumerate(node.input):
                if name in made and made[name].op_type == "Constant":
                    value = made[name].attribute[0].t
                    if value.data_type == FLOAT:
                        node.input[i] = f"{name}_constant"
                        if node.input[i] not in own:
                            own.add(node.input[i])
                            inner.initializer.add().CopyFrom(value)
                            inner.initializer[-1].name = node.input[i]


def drop_unused(graph: GraphProto, original: set[str]) -> None:
    """Without Identities, Constants, Casts not in `original` and stored values that nothing takes."""
    while True:
        used = {output.name for inner in graphs(graph) for output in inner.output}
        used |= {name for inner in graphs(graph) for node in inner.node for name in node.input}
        dropped = 0
        for inner in graphs(graph):
            for i in reversed(range(len(inner.node))):
                node = inner.node[i]
                idle = node.op_type in ("Identity", "Constant")
                idle |= node.op_type == "Cast" and node.name not in original
                if idle and node.output[0] not in used:
                    del inner.node[i]
                    dropped += 1
            for i in reversed(range(len(inner.initializer))):
                if inner.initializer[i].name not in used:
                    del inner.initializer[i]
        if not dropped:
            return


def cast_captured(graph: GraphProto, kept: set[str]) -> None:
    """The converter does not enter a kept If or Loop: what it takes from outside becomes float32."""
    types = element_types(graph)
    for outer in graphs(graph):
        for node in [node for node in outer.node if node.name in kept]:
            for one in list(walk(node))[1:]:
                if one.op_type == "Identity" and types.get(one.input[0]) == FLOAT16:
                    one.op_type = "Cast"
                    one.attribute.append(helper.make_attribute("to", FLOAT))


def join_float32(graph: GraphProto, original: set[str], blocked: set[str], near: set[str]) -> None:
    """The converter rounds to float16 between two float32 nodes: with one of `near` it must not.

    `original` are the nodes of the graph before the conversion; all other Casts are the converter's.
    """
    for inner, made in scopes(graph):
        for node in inner.node:
            leaves = inner is graph and node.op_type == "Cast" and node.name not in original
            leaves = leaves and node.output[0] in {value.name for value in graph.output}
            if node.name in blocked or leaves:
                for i, name in enumerate(node.input):
                    source = _unrounded(name, made, original)
                    giver = made[source].name if source in made else None
                    close = giver in near or node.name in near or (giver is None and leaves)
                    if source != name and close:
                        node.input[i] = source
                        if leaves:
                            node.op_type = "Identity"
                            del node.attribute[:]


def _unrounded(name: str, made: Made, original: set[str]) -> str:
    """The float32 tensor that the converter rounded to float16 to make this one; or the name."""
    found, rounded = name, False
    while found in made:
        node = made[found]
        cast = node.op_type == "Cast" and node.name not in original
        if not cast and node.op_type != "Identity":
            break
        rounded |= cast and cast_to(node) == FLOAT16
        found = node.input[0]
    return found if rounded else name


def scopes(graph: GraphProto, outer: Made | None = None) -> Iterator[tuple[GraphProto, Made]]:
    """Each graph, outermost first, with the nodes whose outputs can be used in it."""
    made = {**(outer or {}), **{name: node for node in graph.node for name in node.output}}
    yield graph, made
    for node in graph.node:
        for inner in subgraphs(node):
            yield from scopes(inner, made)
