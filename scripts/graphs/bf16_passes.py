"""A graph in bfloat16: each node that can be goes between casts, and the needless casts go out again.

Which nodes can be, scripts/graphs/bf16_forms.py tells; what stays float32 and why, scripts/backends/onnxruntime/convert_bf16.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scripts.graphs.bf16_forms import operators, opset_of, places

if TYPE_CHECKING:
    import onnx

LARGEST = 3.3895313892515355e38  # of bfloat16


def convert(
    model: "onnx.ModelProto", kept_operators: Collection[str], opset: int = 0
) -> "onnx.ModelProto":
    """The model with bfloat16 inside, but for the operator types in `kept_operators`.

    The opset is raised to bf16_forms.NEWEST where an operator needs that for bfloat16, and to `opset`. Raises
    ValueError for a value that bfloat16 cannot hold.
    """
    import onnx

    from scripts.graphs.fp16_passes import graphs, name_nodes, write_constants

    since = operators(model)
    opset = max([opset, *(since[one] or 0 for one in since if one not in kept_operators)])
    if opset > opset_of(model):
        model = onnx.version_converter.convert_version(model, opset)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    name_nodes(model.graph)
    for graph in graphs(model.graph):
        write_constants(graph)
        _store_constants(graph)
    narrower = _Narrower(model, {*kept_operators})
    narrower.narrow(model.graph, {}, {})
    narrower.tidy(model.graph)
    return model


def _store_constants(graph: "onnx.GraphProto") -> None:
    """Float32 Constants become initializers, which are rounded once and for all."""
    from scripts.graphs.fp16_passes import FLOAT

    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = node.attribute[0].t
        if tensor.data_type == FLOAT and node.output[0] not in outputs:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)


@dataclass
class _Stored:
    """An initializer, the graph that holds it, and the name of its bfloat16 copy once there is one."""

    tensor: "onnx.TensorProto"
    graph: "onnx.GraphProto"
    narrow: str = ""


class _Narrower:
    """Puts nodes into bfloat16 in a graph and in those inside it. Every float32 name stays good."""

    def __init__(self, model: "onnx.ModelProto", kept: set[str]) -> None:
        from scripts.graphs.fp16_passes import element_types, graphs

        self.kept, self.opset = kept, opset_of(model)
        self.types = element_types(model.graph)
        self.taken = {name for one in graphs(model.graph) for node in one.node
                      for name in (*node.input, *node.output, node.name)}  # fmt: skip
        self.taken |= self.types.keys()
        self.casts: set[str] = set()  # the outputs of those that were put in
        self.copied: set[str] = set()  # the initializers that have a bfloat16 copy
        self.sizes: set[str] = set()  # tensors that come from shapes alone
        self.constants: set[str] = set()

    def narrow(
        self, graph: "onnx.GraphProto", around: dict[str, str], stored: dict[str, _Stored]
    ) -> None:
        """`around`: float32 name -> bfloat16 name, and `stored` the initializers, of graphs outside."""
        from scripts.graphs.fp16_passes import subgraphs

        around = dict(around)
        stored = stored | {one.name: _Stored(one, graph) for one in graph.initializer}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for inner in subgraphs(node):
                self.narrow(inner, around, stored)
            nodes += self._narrow_node(node, around, stored)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]

    def _narrow_node(
        self, node: "onnx.NodeProto", around: dict[str, str], stored: dict[str, _Stored]
    ) -> list["onnx.NodeProto"]:
        """The node with the casts before and after it."""
        from onnx import TensorProto

        from scripts.graphs.fp16_passes import FLOAT

        if self._is_size(node, stored) or node.op_type in self.kept:
            return [node]
        inputs, outputs = places(node, self.types, self.opset)
        before, after = [], []
        for i in inputs:
            name = node.input[i]
            if name in stored:
                around[name] = self._store(stored[name])
            elif name not in around:
                around[name] = self._name(name)
                before.append(self._cast(name, around[name], TensorProto.BFLOAT16))
            node.input[i] = around[name]
        for i in outputs:
            name = node.output[i]
            node.output[i] = around[name] = self._name(name)
            after.append(self._cast(around[name], name, FLOAT))
        for attribute in node.attribute if node.op_type == "Cast" and outputs else ():
            if attribute.name == "to":
                attribute.i = TensorProto.BFLOAT16
        return [*before, node, *after]

    def _is_size(self, node: "onnx.NodeProto", stored: dict[str, _Stored]) -> bool:
        """Whether all it takes comes from shapes, and not from constants alone."""
        from scripts.graphs.fp16_passes import subgraphs

        given = {name for name in node.input if name}
        if node.op_type == "Constant":
            self.constants.update(node.output)
        size = bool(given & self.sizes) and given <= self.sizes | self.constants | stored.keys()
        size = size and not list(subgraphs(node))  # which may take more from outside
        if size or node.op_type in ("Shape", "Size"):
            self.sizes.update(node.output)
        return size

    def _store(self, one: _Stored) -> str:
        """The name of the bfloat16 copy of an initializer, rounded to nearest, ties to even."""
        from ml_dtypes import bfloat16
        from onnx import numpy_helper

        if not one.narrow:
            name, values = one.tensor.name, numpy_helper.to_array(one.tensor)
            rounded = values.astype(bfloat16)
            lost = np.isfinite(values) & ~np.isfinite(rounded.astype(np.float32))
            if lost.any():
                raise ValueError(
                    f"bfloat16 cannot hold {values[lost][0]:.6g}, a value of {name!r} (its largest "
                    f"is {LARGEST:.6g}; a mask can be float('-inf') instead)"
                )
            one.narrow = self._name(name)
            self.copied.add(name)
            one.graph.initializer.append(numpy_helper.from_array(rounded, one.narrow))
        return one.narrow

    def _name(self, name: str) -> str:
        name += "_bf16"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _cast(self, name: str, out: str, kind: int) -> "onnx.NodeProto":
        from onnx import helper

        self.casts.add(out)
        return helper.make_node("Cast", [name], [out], self._name(f"{out}_cast"), to=kind)

    def tidy(self, graph: "onnx.GraphProto") -> None:
        """Take out the casts, and the float32 initializers, that nothing uses any more."""
        from scripts.graphs.fp16_passes import graphs

        used = {name for one in graphs(graph) for node in one.node for name in node.input}
        used |= {value.name for one in graphs(graph) for value in one.output}
        for one in graphs(graph):
            for node in [node for node in one.node if node.op_type == "Cast"]:
                if node.output[0] in self.casts - used:
                    one.node.remove(node)
            for tensor in [tensor for tensor in one.initializer if tensor.name in self.copied]:
                if tensor.name not in used:
                    one.initializer.remove(tensor)
