"""Prove from the file itself what precision a converted ONNX or TorchScript model computes in.

Reads   model.onnx or model.pt
Writes  <variant>.precision.json: shares of nodes and of weight bytes in float16
Runs    on the CPU
Usage   python3 -m scripts.prove_precision --variant onnx_fp16 \
            --model model_repository/digits_onnx_fp16/1/model.onnx \
            --out results/digits/onnx_fp16.precision.json
Prints  onnx_fp16: 100 % of the nodes and 100 % of the weight bytes are float16
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.files import hashes, versions, write_json
from scripts.variants import BY_NAME

if TYPE_CHECKING:
    import onnx


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(variant: str, model: Path, out: Path) -> None:
    found, tiny = torchscript_shares(model) if model.suffix == ".pt" else onnx_shares(model)
    wanted = BY_NAME[variant].precision
    if found["weight_bytes"] == 0:
        raise click.ClickException(f"{model} holds no weights in floating point: nothing to prove.")
    if wanted == "float16" and found["weight_share_float16"] == 0:
        raise click.ClickException(
            f"{model} is called {variant}, and none of its weights are float16. The conversion "
            "did nothing; it must not be shipped under that name."
        )
    if wanted == "float32" and found["weight_share_float16"] > 0:
        raise click.ClickException(f"{model} is called {variant}, and holds float16 weights.")
    content = {
        "variant": variant,
        "step": "precision",
        "inputs": hashes([model]),
        "versions": versions("torch" if model.suffix == ".pt" else "onnx"),
        "metrics": found
        | {
            "share_float16": found["weight_share_float16"],
            "share_of": "weight bytes",
            "counted": found["weight_bytes"],
            "file_bytes": sum(path.stat().st_size for path in model.parent.glob(model.name + "*")),
            "values_below_float16": tiny,
        },
    }
    write_json(out, content)
    click.echo(
        f"{variant}: {found['node_share_float16']:.0%} of the nodes and "
        f"{found['weight_share_float16']:.0%} of the weight bytes are float16"
    )


def onnx_shares(path: Path) -> tuple[dict[str, Any], int]:
    """`shares` of an ONNX file, and how many values the conversion to float16 lost to its smallest."""
    import onnx

    from scripts.fp16_passes import TINY_KEY

    model = onnx.load(path)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return shares(model), int(notes.get(TINY_KEY, 0))


def torchscript_shares(path: Path) -> tuple[dict[str, Any], int]:
    """The same of a TorchScript file: its parameters and buffers, and the nodes of its graph."""
    import torch

    model = torch.jit.load(str(path), map_location="cpu")
    stored = [*model.state_dict().values()]
    nodes, node_half = 0, 0
    for node in model.inlined_graph.nodes():
        tensors = [one for one in node.outputs() if isinstance(one.type(), torch._C.TensorType)]
        if tensors and node.kind() == "prim::Constant":
            stored.append(tensors[0].toIValue())
        elif tensors and not node.kind().startswith("prim::"):
            nodes += 1
            node_half += all(one.type().dtype() == torch.float16 for one in tensors)
    floating = [tensor for tensor in stored if tensor.is_floating_point()]
    size = sum(tensor.nbytes for tensor in floating)
    size_half = sum(tensor.nbytes for tensor in floating if tensor.dtype == torch.float16)
    return {
        "nodes": nodes,
        "node_share_float16": node_half / nodes if nodes else 0.0,
        "weight_bytes": size,
        "weight_share_float16": size_half / size if size else 0.0,
    }, 0


def shares(model: "onnx.ModelProto") -> dict[str, Any]:
    """Counts over the graph and its subgraphs.

    `nodes`: nodes that compute in floating point (Cast, Constant and Identity do not compute);
    `node_share_float16`: how many of them give float16; `weight_bytes`: bytes of stored
    floating-point values; `weight_share_float16`: the share of them in float16.
    """
    import onnx

    from scripts.fp16_passes import FLOAT, FLOAT16, element_types, graphs

    half: dict[int | None, bool] = {FLOAT16: True, FLOAT: False}
    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    nodes, node_half, size, size_half = 0, 0, 0, 0
    for graph in graphs(model.graph):
        stored = list(graph.initializer)
        for node in graph.node:
            stored += [attribute.t for attribute in node.attribute]
            made = [half[types[name]] for name in node.output if types.get(name) in half]
            if made and node.op_type not in ("Cast", "Constant", "Identity"):
                nodes += 1
                node_half += all(made)
        for tensor in stored:
            if tensor.data_type in half:
                values = onnx.numpy_helper.to_array(tensor)
                size += values.nbytes
                size_half += values.nbytes if half[tensor.data_type] else 0
    return {
        "nodes": nodes,
        "node_share_float16": node_half / nodes if nodes else 0.0,
        "weight_bytes": size,
        "weight_share_float16": size_half / size if size else 0.0,
    }


if __name__ == "__main__":
    main()
