"""Prove from a TorchScript file itself what number format it computes in.

Reads   model.pt
Writes  <variant>.precision.json: the share of nodes and of weight bytes in low precision
Runs    on the CPU
Usage   python3 -m scripts.backends.pytorch.prove data/digits/case.toml --variant torchscript_fp32 \
            --model model_repository/digits_torchscript_fp32/1/model.pt \
            --out results/digits/torchscript_fp32.precision.json
Prints  torchscript_fp32: 0% of the nodes and 0% of the weight bytes are float16
"""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from scripts.files import write_json
from scripts.graphs.shares import check, metrics, summary, words
from scripts.step import record, step
from scripts.variants import BY_NAME


@step(__doc__, "variant", "model", "out")
def main(variant: str, model: Path, out: Path) -> None:
    found, notes = torchscript_shares(model)
    wanted = BY_NAME[variant].precision
    check(found, wanted, variant, model)
    content = record("precision", [model], ("torch",), variant)
    write_json(out, content | {"metrics": metrics(found, wanted, model) | notes})
    click.echo(words(variant, found, wanted))


def torchscript_shares(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`summary` of its parameters and buffers, and of the nodes of its graph; what else is noted."""
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


if __name__ == "__main__":
    main()
