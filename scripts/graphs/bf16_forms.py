"""What of a graph can be bfloat16: the operators and the ends of nodes of which ONNX has such a form."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

NEWEST = 22  # the opset that gives Conv, the pools and the recurrent operators a bfloat16 form
# What makes numbers, of which nothing is gained, and control flow, around which tensors stay float32.
FLOAT32_ONLY = ("Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform",
                "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
                "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan")  # fmt: skip


def operators(model: "onnx.ModelProto") -> dict[str, int | None]:
    """The types of the nodes that take or give float32, in graph order, and when they get bfloat16.

    That is an opset, the model's own where it is enough; None: ONNX has no bfloat16 form of it.
    """
    import onnx

    from scripts.graphs.fp16_passes import FLOAT, element_types, graphs

    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    types, own = element_types(model.graph), opset_of(model)
    found: dict[str, int | None] = {}
    for graph in graphs(model.graph):
        for node in graph.node:
            ends = [types.get(name) for name in (*node.input, *node.output)]
            if FLOAT in ends and node.op_type not in FLOAT32_ONLY:
                possible = [one for one in sorted({own, max(own, NEWEST)})
                            if any(places(node, types, one))]  # fmt: skip
                if possible:  # of several nodes, the one that needs most
                    found[node.op_type] = max(possible[0], found.get(node.op_type) or 0)
                found.setdefault(node.op_type, None)
    return found


def opset_of(model: "onnx.ModelProto") -> int:
    """The opset of ONNX's own operators."""
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def counts(model: "onnx.ModelProto") -> tuple[int, int]:
    """(nodes that give bfloat16, nodes that give floating point); Cast and Identity do not compute."""
    import onnx

    from scripts.graphs.fp16_passes import FLOAT, element_types, graphs

    low, every = onnx.TensorProto.BFLOAT16, 0
    types = element_types(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    found = 0
    for graph in graphs(model.graph):
        for node in graph.node:
            made = {types.get(name) for name in node.output} & {FLOAT, low}
            if made and node.op_type not in ("Cast", "Constant", "Identity"):
                every += 1
                found += low in made
    return found, every


def places(
    node: "onnx.NodeProto", types: dict[str, int], opset: int
) -> tuple[list[int], list[int]]:
    """(inputs, outputs) of the node that become bfloat16, as ONNX allows it in that opset."""
    import onnx

    from scripts.graphs.fp16_passes import FLOAT, cast_to

    unknown = any(name and not types.get(name) for name in (*node.input, *node.output))
    if unknown or node.domain not in ("", "ai.onnx") or node.op_type in FLOAT32_ONLY:
        return [], []
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    held = {
        one.type_param_str
        for one in schema.type_constraints
        if "tensor(bfloat16)" in one.allowed_type_strs
    }

    def kind(formal: "Sequence[onnx.defs.OpSchema.FormalParameter]", i: int) -> str:
        return str(formal[min(i, len(formal) - 1)].type_str)  # the last may stand for many

    inputs = [
        i
        for i, name in enumerate(node.input)
        if types.get(name) == FLOAT and kind(schema.inputs, i) in held
    ]
    same = {kind(schema.inputs, i) for i in inputs}
    if node.op_type == "Cast":
        same = held if cast_to(node) == FLOAT else set()
    outputs = [
        i
        for i, name in enumerate(node.output)
        if types.get(name) == FLOAT and kind(schema.outputs, i) in same
    ]
    return inputs, outputs
