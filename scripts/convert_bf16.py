"""Convert the float32 ONNX to bfloat16, but for the operators that the runtime computes only in float32.

bfloat16 has the range of float32, and 8 significant bits. Inputs and outputs stay float32, and so do
numbers that come from shapes alone (an axis of 257 would become 256). Each node is put between casts,
and the casts that nothing needs are taken out again.

Reads   case.toml, samples.json, the float32 model.onnx, onnx_bf16.support.json
Writes  model.onnx
Runs    on the CPU, or on the GPU where that file was made on one
Usage   python3 -m scripts.convert_bf16 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --support results/digits/onnx_bf16.support.json \
            --out model_repository/digits_onnx_bf16/1/model.onnx
Prints  onnx_bf16: 3 of 8 nodes in bfloat16, opset 22, 0.05 MB, runs at batch 1, 31, 32
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from scripts.case import Case, read_case
from scripts.export_onnx import save
from scripts.files import read_json, writing
from scripts.onnx_session import default_threads, open_session, run_session, trial_sizes
from scripts.samples import Batch, Samples

if TYPE_CHECKING:
    import onnx

LARGEST = 3.3895313892515355e38  # of bfloat16
NEWEST = 22  # the opset that gives Conv, the pools and the recurrent operators a bfloat16 form
# What makes numbers, of which nothing is gained, and control flow, around which tensors stay float32.
FLOAT32_ONLY = ("Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform",
                "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
                "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan")  # fmt: skip


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--samples", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--support", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, model: Path, support: Path, out: Path) -> None:
    import onnx

    case, found = read_case(case_toml), read_json(support)
    if not found["made"]:
        raise click.ClickException(
            f"{support} says that onnx_bf16 is {found['reason']}. Go on without this variant, as "
            "`make all` does."
        )
    try:
        converted = convert(onnx.load(model), found["kept_operators"])
    except ValueError as error:
        raise click.ClickException(
            f'{model}: {error}. To go on without this variant, set skip = ["onnx_bf16"] in '
            f"{case_toml}."
        ) from None
    batch = Samples(case, samples).some(case.max_batch)
    if found["device"] == "cpu":
        save(converted, out, case, batch)
    else:
        save_on(found["device"], converted, out, case, batch)
    low, nodes = counts(converted)
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_bf16: {low} of {nodes} nodes in bfloat16, opset {opset_of(converted)}, "
        f"{out.stat().st_size / 1e6:.2g} MB, runs at batch {sizes}"
    )


def save_on(device: str, model: "onnx.ModelProto", out: Path, case: Case, batch: Batch) -> None:
    """As export_onnx.save, tried on `device`: what a GPU computes, the CPU may have no code for."""
    import onnx

    with writing(out) as temporary:
        onnx.save_model(model, temporary)
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise click.ClickException(f"The ONNX checker refuses {out}: {error}") from None
        session = open_session(temporary, device, default_threads())
        for size in trial_sizes(case.max_batch):
            output = run_session(session, {name: rows[:size] for name, rows in batch.items()})
            if output.shape[:1] != (size,) or output.dtype != np.float32:
                raise click.ClickException(
                    f"{out} gives {output.dtype} of shape {output.shape} for a batch of {size}; "
                    "one float32 row per sample is needed."
                )


def convert(
    model: "onnx.ModelProto", kept_operators: Collection[str], opset: int = 0
) -> "onnx.ModelProto":
    """The model with bfloat16 inside, but for the operator types in `kept_operators`.

    The opset is raised to NEWEST where an operator needs that for bfloat16, and to `opset`. Raises
    ValueError for a value that bfloat16 cannot hold.
    """
    import onnx

    from scripts import fp16_passes as passes

    since = operators(model)
    opset = max([opset, *(since[one] or 0 for one in since if one not in kept_operators)])
    if opset > opset_of(model):
        model = onnx.version_converter.convert_version(model, opset)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    passes.name_nodes(model.graph)
    for graph in passes.graphs(model.graph):
        passes.write_constants(graph)
        _store_constants(graph)
    narrower = _Narrower(model, {*kept_operators})
    narrower.narrow(model.graph, {}, {})
    narrower.tidy(model.graph)
    return model


def operators(model: "onnx.ModelProto") -> dict[str, int | None]:
    """The types of the nodes that take or give float32, in graph order, and when they get bfloat16.

    That is an opset, the model's own where it is enough; None: ONNX has no bfloat16 form of it.
    """
    import onnx

    from scripts.fp16_passes import FLOAT, element_types, graphs

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

    from scripts.fp16_passes import FLOAT, element_types, graphs

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

    from scripts.fp16_passes import FLOAT, cast_to

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


def _store_constants(graph: "onnx.GraphProto") -> None:
    """Float32 Constants become initializers, which are rounded once and for all."""
    from scripts.fp16_passes import FLOAT

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
        from scripts.fp16_passes import element_types, graphs

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
        from scripts.fp16_passes import subgraphs

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

        from scripts.fp16_passes import FLOAT

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
        from scripts.fp16_passes import subgraphs

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
        from scripts.fp16_passes import graphs

        used = {name for one in graphs(graph) for node in one.node for name in node.input}
        used |= {value.name for one in graphs(graph) for value in one.output}
        for one in graphs(graph):
            for node in [node for node in one.node if node.op_type == "Cast"]:
                if node.output[0] in self.casts - used:
                    one.node.remove(node)
            for tensor in [tensor for tensor in one.initializer if tensor.name in self.copied]:
                if tensor.name not in used:
                    one.initializer.remove(tensor)


if __name__ == "__main__":
    main()
