"""Prove from the file itself what precision a converted ONNX or TorchScript model computes in.

Reads   model.onnx or model.pt
Writes  <variant>.precision.json: shares of nodes and of weights in float16, bfloat16 and int8
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.prove --variant onnx_fp16 \
            --model model_repository/digits_onnx_fp16/1/model.onnx \
            --out results/digits/onnx_fp16.precision.json
Prints  onnx_fp16: 100% of the nodes and 100% of the weight bytes are float16
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.files import hashes, read_json, versions, write_json
from scripts.variants import BY_NAME

if TYPE_CHECKING:
    import onnx

LOW = ("float16", "bfloat16", "int8")
# Operators that move or convert values, and compute nothing.
IDLE = ("Cast", "Constant", "Identity", "QuantizeLinear", "DequantizeLinear")
BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Clip": 1}  # from this input on: no data


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--range", "span", type=click.Path(path_type=Path), help="<...>.range.json; float16 only."
)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(variant: str, model: Path, span: Path | None, out: Path) -> None:
    found, notes = torchscript_shares(model) if model.suffix == ".pt" else onnx_shares(model)
    wanted = BY_NAME[variant].precision
    check(found, wanted, variant, model)
    low = wanted if wanted in LOW else "float16"
    unit = "weights" if low == "int8" else "weight bytes"
    if span is not None:
        notes |= overflows(model, read_json(span))
    content = {
        "variant": variant,
        "step": "precision",
        "inputs": hashes([model] + ([span] if span else [])),
        "versions": versions("torch" if model.suffix == ".pt" else "onnx"),
        "metrics": found
        | {
            "precision": wanted,
            "share": found[f"weight_share_{wanted}"] if wanted in LOW else 0.0,
            "share_float16": found["weight_share_float16"],
            "share_of": unit,
            "counted": found["weight_bytes"],
            "file_bytes": sum(path.stat().st_size for path in model.parent.glob(model.name + "*")),
        }
        | notes,
    }
    write_json(out, content)
    click.echo(
        f"{variant}: {found[f'node_share_{low}']:.0%} of the nodes and "
        f"{found[f'weight_share_{low}']:.0%} of the {unit} are {low}"
    )


def overflows(model: Path, largest: dict[str, Any]) -> dict[str, Any]:
    """The tensors that are float16 in this file and pass float16's range, or half of it, in float32."""
    import onnx

    from scripts.backends.onnxruntime.check_range import LIMIT, beyond

    loaded = onnx.load(model)
    return {
        "beyond": beyond(loaded, largest, LIMIT),
        "beyond_half": beyond(loaded, largest, LIMIT / 2),
    }


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


def onnx_shares(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`shares` of an ONNX file, and what the conversion wrote down in it."""
    import onnx

    from scripts.graphs.fp16_passes import TINY_KEY
    from scripts.graphs.int8_graph import NOTES

    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    notes = {name: entries[name] for name in NOTES if name in entries}
    counts = {"calibration_samples": int(notes["calibration_samples"])} if notes else {}
    tiny = {"values_below_float16": int(entries.get(TINY_KEY, 0))}
    return shares(model), tiny | notes | counts


def torchscript_shares(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of a TorchScript file: its parameters and buffers, and the nodes of its graph."""
    import torch

    kinds = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
    model = torch.jit.load(str(path), map_location="cpu")
    stored = [*model.state_dict().values()]
    nodes: Counter[str] = Counter()
    for node in model.inlined_graph.nodes():
        tensors = [one for one in node.outputs() if isinstance(one.type(), torch._C.TensorType)]
        if tensors and node.kind() == "prim::Constant":
            stored.append(tensors[0].toIValue())
        elif tensors and not node.kind().startswith("prim::"):
            given = {kinds.get(one.type().dtype(), "float32") for one in tensors}
            nodes[given.pop() if len(given) == 1 else "float32"] += 1
    sizes: Counter[str] = Counter()
    for tensor in stored:
        if tensor.is_floating_point():
            sizes[kinds.get(tensor.dtype, "float32")] += tensor.nbytes
    return summary(nodes, sizes, Counter()), {"values_below_float16": 0}


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


if __name__ == "__main__":
    main()
