"""Where int8 flows in a graph: the nodes that can compute it, and the tensors that become it.

Who gives and who takes each tensor is asked of `Flow`, `candidates` are the nodes that int8 can
compute, and `plan` says which of their inputs and results are rounded.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
# Rounding before them is the same as rounding after them, so that int8 may flow through.
CARRIERS = ("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze",
            "Slice", "Concat")  # fmt: skip


def candidates(model: "onnx.ModelProto") -> list[str]:
    """The nodes that int8 can compute and `keep` can name, in graph order; unnamed ones are named.

    Conv, Gemm and MatMul, and an Add whose two inputs come from such a Conv or Add.
    """
    import onnx

    from scripts.graphs.fp16_passes import FLOAT, element_types

    graph = named(model).graph
    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    flow, found = Flow(graph), list[str]()
    rounded = set[str]()
    for node in graph.node:
        taken = flow.taken(node)
        if not taken or any(types.get(name) != FLOAT for name in (*taken, node.output[0])):
            continue
        adds = node.op_type == "Add" and all(flow.sources(name) <= rounded for name in taken)
        if adds or node.op_type in WEIGHTED:
            found.append(node.name)
        if adds or node.op_type == "Conv":
            rounded.add(node.name)
    return found


class Flow:
    """Who gives and who takes each tensor of a graph whose nodes have names.

    Branches inside it take what they take unrounded, whatever becomes of it outside.
    """

    def __init__(self, graph: "onnx.GraphProto") -> None:
        self.nodes = list(graph.node)
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.takers[name].append(node)
        self.ends = {value.name for value in graph.output}

    def taken(self, node: "onnx.NodeProto") -> list[str]:
        """The inputs that int8 activations can flow into; none where the operator cannot take them."""
        kind, stored = node.op_type, self.stored
        if node.domain not in ("", "ai.onnx"):
            return []
        if kind in ("Conv", "Gemm"):
            return [node.input[0]] if node.input[1] in stored else []
        if kind in ("MatMul", "Add", "Concat"):
            fixed = [stored[name] for name in node.input if name in stored]
            if fixed and (kind != "MatMul" or len(fixed[0].dims) < 2):
                return []
            return [name for name in dict.fromkeys(node.input) if name not in stored]
        single = kind in CARRIERS and len(node.output) == 1 and node.input[0] not in stored
        return [node.input[0]] if single else []

    def carriers(self, name: str) -> list["onnx.NodeProto"]:
        """The carriers among the nodes that take the tensor."""
        return [
            node
            for node in self.takers[name]
            if node.op_type in CARRIERS and name in self.taken(node)
        ]

    def sources(self, name: str) -> set[str]:
        """The nodes that computed what carriers bring there; "" for an input of the graph."""
        node = self.maker.get(name)
        if node is None or node.op_type not in CARRIERS or not (taken := self.taken(node)):
            return {node.name if node is not None else ""}
        return {source for one in taken for source in self.sources(one)}

    def reaches(self, name: str, nodes: frozenset[str]) -> bool:
        """Whether carriers bring the tensor to one of `nodes`."""
        return any(node.name in nodes for node in self.takers[name]) or any(
            self.reaches(node.output[0], nodes) for node in self.carriers(name)
        )

    def bare(self, nodes: set[str]) -> set[str]:
        """The tensors that reach an output with none of `nodes` in between."""
        found = set(self.ends)
        for node in reversed(self.nodes):
            if node.name not in nodes and found & set(node.output):
                found |= set(node.input)
        return found

    def scaled_as(self, name: str) -> str:
        """The tensor whose range it shares: a carrier's output where nothing else takes it.

        What a ReLU cuts off needs no range, and rounding before it is then rounding after it.
        """
        carriers = self.carriers(name)
        alone = name not in self.ends and len(self.takers[name]) == len(carriers) == 1
        return self.scaled_as(carriers[0].output[0]) if alone else name


def plan(flow: Flow, nodes: tuple[str, ...], keep: frozenset[str]) -> dict[str, set[str]]:
    """tensor -> the nodes that take it as int8.

    Every input of a quantised node. What a Conv or an Add gives, too (ONNX Runtime computes it in
    int8 only so), unless a kept node takes it, which is to have it unrounded, or no other of
    `nodes` stands between it and an output. And what carriers take on the way from one quantised
    node to the next.
    """
    active, bare = set(nodes) - keep, flow.bare(set(nodes))
    edges: dict[str, set[str]] = defaultdict(set)
    for node in flow.nodes:
        if node.name in active:
            for name in flow.taken(node):
                edges[name].add(node.name)
            given = node.output[0]
            rounded = node.op_type in ("Conv", "Add") and given not in bare
            if rounded and not flow.reaches(given, keep):
                edges[given] |= {taker.name for taker in flow.takers[given]}
    for node in reversed(flow.nodes):
        given = node.output[0] if node.output else ""
        takers = {taker.name for taker in flow.takers[given]}
        if node.op_type in CARRIERS and takers and given not in flow.ends:
            for name in flow.taken(node) if edges.get(given) == takers else ():
                if flow.scaled_as(name) != name and flow.sources(name) <= active:
                    edges[name].add(node.name)
    return {name: takers for name, takers in edges.items() if takers}


def named(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A copy in which every node has a name, the same in every copy."""
    from onnx import ModelProto

    from scripts.graphs.fp16_passes import name_nodes

    copy = ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy.graph)
    return copy
