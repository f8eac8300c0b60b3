"""How much of a graph is in which number format: its nodes and its weights, counted."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import onnx

LOW = ("float16", "bfloat16", "int8")
# Operators that move or convert values, and compute nothing.
IDLE = ("Cast", "Constant", "Identity", "QuantizeLinear", "DequantizeLinear")
BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Clip": 1}  # from this input on: no data


def shares(model: "onnx.ModelProto") -> dict[str, Any]:
    """Counts over the graph and its subgraphs.

    `nodes`: nodes that compute in floating point or int8 (those of IDLE do not compute).
    `node_share_float16`, `node_share_bfloat16`: how many of them give that type;
    `node_share_int8`: how many have every data input (not a bias) straight from DequantizeLinear;
    `nodes_float32`: the others. `weight_bytes`: bytes of the stored weights: floating-point
    values, scales excluded, and the integers that DequantizeLinear makes weights and biases of;
    `weight_bytes_float32`: those in float32. `weight_share_float16`, `weight_share_bfloat16`: the
    share of the bytes; `weight_share_int8`: the share of the weights by number, whatever their
    size, stored as int8 (biases, in int32, are of the others).
    """
    import onnx

    from scripts.graphs.fp16_passes import element_types, graphs

    floats: dict[int, str] = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16",
                              onnx.TensorProto.BFLOAT16: "bfloat16"}  # fmt: skip
    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    inner = list(graphs(model.graph))
    every = [node for graph in inner for node in graph.node]
    dequantised = {n for node in every if node.op_type == "DequantizeLinear" for n in node.output}
    integers = {node.input[0] for node in every if node.op_type == "DequantizeLinear"}
    scaling = ("QuantizeLinear", "DequantizeLinear")
    scales = {name for node in every if node.op_type in scaling for name in node.input[1:3]}
    nodes: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for node in every:
        given = {floats[types[name]] for name in node.output if types.get(name) in floats}
        if given and node.op_type not in IDLE:
            data = [name for name in node.input[: BIAS.get(node.op_type)] if name]
            data = [name for name in data if types.get(name, onnx.TensorProto.FLOAT) in floats]
            whole = bool(data) and all(name in dequantised for name in data)
            one = given.pop() if len(given) == 1 else "float32"
            nodes["int8" if whole else one] += 1
    stored = [tensor for graph in inner for tensor in graph.initializer]
    stored += [attribute.t for node in every for attribute in node.attribute]
    for tensor in stored:
        kind = floats.get(tensor.data_type)
        if tensor.name in integers:
            kind = "int8" if tensor.data_type == onnx.TensorProto.INT8 else "other"
        if kind and not (tensor.name and tensor.name in scales):
            values = onnx.numpy_helper.to_array(tensor)
            sizes[kind] += values.nbytes
            numbers[kind] += values.size
    return summary(nodes, sizes, numbers)


def summary(nodes: Counter[str], sizes: Counter[str], numbers: Counter[str]) -> dict[str, Any]:
    """Of counts by type (nodes, bytes of weights, weights by number): what `shares` describes."""
    parts = {f"node_share_{low}": share(nodes[low], nodes.total()) for low in LOW}
    parts |= {f"weight_share_{low}": share(sizes[low], sizes.total()) for low in LOW[:2]}
    return parts | {
        "nodes": nodes.total(),
        "nodes_float32": nodes["float32"],
        "weight_bytes": sizes.total(),
        "weight_bytes_float32": sizes["float32"],
        "weight_share_int8": share(numbers["int8"], numbers.total()),
    }


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def check(found: dict[str, Any], wanted: str, variant: str, model: Path) -> None:
    """Raises click.ClickException unless the weights are what the variant's name says."""
    if found["weight_bytes"] == 0:
        raise click.ClickException(f"{model} holds no weights in floating point: nothing to prove.")
    if wanted in LOW and found[f"weight_share_{wanted}"] == 0:
        raise click.ClickException(
            f"{model} is called {variant}, and none of its weights are {wanted}. The conversion "
            "did nothing; it must not be shipped under that name."
        )
    for low in LOW:
        if wanted == "float32" and found[f"weight_share_{low}"] > 0:
            raise click.ClickException(f"{model} is called {variant}, and holds {low} weights.")


def metrics(found: dict[str, Any], wanted: str, model: Path) -> dict[str, Any]:
    """What <variant>.precision.json says: `found` (`summary`), and of it what the name promises."""
    return found | {
        "precision": wanted,
        "share": found[f"weight_share_{wanted}"] if wanted in LOW else 0.0,
        "share_float16": found["weight_share_float16"],
        "share_of": unit(wanted),
        "counted": found["weight_bytes"],
        "file_bytes": sum(path.stat().st_size for path in model.parent.glob(model.name + "*")),
    }


def unit(wanted: str) -> str:
    """What is counted of the weights: where they are of several sizes, their number."""
    return "weights" if wanted == "int8" else "weight bytes"


def words(variant: str, found: dict[str, Any], wanted: str) -> str:
    """The proof in one line."""
    low = wanted if wanted in LOW else "float16"
    return (
        f"{variant}: {found[f'node_share_{low}']:.0%} of the nodes and "
        f"{found[f'weight_share_{low}']:.0%} of the {unit(wanted)} are {low}"
    )
