"""Quantise the float32 ONNX to int8: static, QDQ, symmetric, weights per channel, output in float32.

Activations are calibrated on a part of the test data on which no flip is counted. They are written
as uint8 around 128, which is int8 around 0 in the form that ONNX Runtime computes without detours;
`for_tensorrt` gives the same values in the form that TensorRT takes. Branches of an If and bodies
of loops stay float32.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.quantize_int8 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_int8/1/model.onnx
Prints  onnx_int8: 3 of 8 nodes quantised, calibrated on 112 samples, 0.0075 MB, runs at batch 1, 31, 32
"""

import contextlib
import hashlib
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case import Case, read_case
from scripts.export_onnx import save
from scripts.onnx_session import trial_sizes
from scripts.parts import calibration_rows
from scripts.samples import Batch, Samples

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
# Rounding before them is the same as rounding after them, so that int8 may flow through.
CARRIERS = ("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze",
            "Slice", "Concat")  # fmt: skip
LARGEST = 127  # of int8, symmetric: TensorRT takes no other zero point than 0
MIDDLE = 128  # the zero point of uint8 that stands for int8's 0
# Two products of an activation (up to 255) and such a weight fit into the 16 bits in which an x86
# processor without VNNI adds them.
LARGEST_WITHOUT_VNNI = 64
BIAS_STEPS = 2.0**30  # at most, of a bias: int32 with room for the products
NOTES = ("calibration_method", "calibration_samples", "calibration_rows_sha256")
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Ranges:
    """What calibration found: all that `quantize` needs besides the model."""

    nodes: tuple[str, ...]  # that int8 can compute, in graph order
    largest: dict[str, float]  # tensor -> its largest absolute value
    samples: int
    weight_limit: int  # weights become -weight_limit..weight_limit


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--samples", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, model: Path, out: Path) -> None:
    import onnx

    case = read_case(case_toml)
    skip = f'set skip = ["onnx_int8"] in {case_toml}.'
    if model.with_name(model.name + ".data").exists():
        raise click.ClickException(
            f"{model} keeps its weights in a second file (2 GB or more), which this converter "
            f"cannot take. To go on without this variant, {skip}"
        )
    data, source = Samples(case, samples), onnx.load(model)
    try:
        ranges = calibrate(source, calibration_batches(case, data))
        rows = calibration_rows(data.labels.astype(bool), data.groups)
        converted = note(quantize(source, ranges), rows)
    except ValueError as error:
        raise click.ClickException(
            f"{model}: {error}. To go on without this variant, {skip}"
        ) from None
    save(converted, out, case, data.some(case.max_batch))
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_int8: {len(ranges.nodes)} of {len(source.graph.node)} nodes quantised, "
        f"calibrated on {ranges.samples} samples, {out.stat().st_size / 1e6:.2g} MB, "
        f"runs at batch {sizes}"
    )


def calibration_batches(case: Case, data: Samples) -> Iterator[Batch]:
    """The calibration samples and no others, at most `case.max_batch` at a time."""
    rows = calibration_rows(data.labels.astype(bool), data.groups).tolist()
    for start in range(0, len(rows), case.max_batch):
        yield data.rows(rows[start : start + case.max_batch])


def candidates(model: "onnx.ModelProto") -> list[str]:
    """The nodes that int8 can compute and `keep` can name, in graph order; unnamed ones are named.

    Conv, Gemm and MatMul, and an Add whose two inputs come from such a Conv or Add.
    """
    import onnx

    from scripts.fp16_passes import FLOAT, element_types

    graph = _named(model).graph
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


def calibrate(model: "onnx.ModelProto", batches: Iterable[Batch]) -> Ranges:
    """The ranges of the tensors that int8 would hold, by ONNX Runtime's MinMax, batch by batch.

    Raises ValueError where there is no node to quantise, no sample, or a value that is not finite.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    nodes = candidates(model)
    if not nodes:
        found = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise ValueError(
            f"onnx_int8 was asked for, and no node of it is a Conv, Gemm or MatMul that int8 could "
            f"compute (it has {found})"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            [*WEIGHTED, "Add", *CARRIERS],
            str(path.with_name("augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
        )
        samples = 0
        for batch in batches:
            for name, array in batch.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise ValueError(f"a calibration sample of {name!r} holds NaN or infinity")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tensors of NaN alone, which is told below
                calibrator.collect_data(_Once(batch))  # merges what it found into what it had
            samples += len(next(iter(batch.values())))
        if not samples:
            raise ValueError("there is no calibration sample: it needs at least 1, and has 0")
        found_ranges = calibrator.compute_data()
    largest = {
        name: float(np.max(np.abs(np.asarray(one.range_value, np.float64))))
        for name, one in found_ranges.items()
    }
    ranges = Ranges(tuple(nodes), largest, samples, weight_limit())
    flow = Flow(_named(model).graph)
    for name in plan(flow, ranges.nodes, frozenset()):
        if not np.isfinite(largest[flow.scaled_as(name)]):
            raise ValueError(
                f"on the calibration samples {name!r}, which int8 would hold, is not finite"
            )
    return ranges


class _Once:
    """One batch, as ONNX Runtime's calibrator reads it."""

    def __init__(self, batch: Batch) -> None:
        self.batches = [batch]

    def get_next(self) -> Batch | None:
        return self.batches.pop() if self.batches else None


def weight_limit(processor: Path = Path("/proc/cpuinfo")) -> int:
    """The largest quantised weight that this machine's processor multiplies without saturating.

    One of x86 without VNNI saturates the sum of two products (ONNX Runtime calls the remedy
    reduce_range).
    """
    with contextlib.suppress(OSError):
        for line in processor.read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return LARGEST if "vnni" in line else LARGEST_WITHOUT_VNNI
    return LARGEST


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


def quantize(
    model: "onnx.ModelProto", ranges: Ranges, keep: frozenset[str] = frozenset()
) -> "onnx.ModelProto":
    """The model with int8 inside, and the nodes named in `keep` as they were, on unrounded inputs.

    Inputs and outputs stay float32. The same arguments give the same bytes. Raises ValueError for a
    name in `keep` that is not one of `candidates`.
    """
    if unknown := sorted(keep - set(ranges.nodes)):
        raise ValueError(f"{unknown} are to be kept, and only {list(ranges.nodes)} are quantised")
    model = _named(model)
    flow = Flow(model.graph)
    edges, writer = plan(flow, ranges.nodes, keep), Writer(flow, ranges)
    for node in flow.nodes:
        written = type(node).FromString(node.SerializeToString())
        for i, name in enumerate(node.input):
            if node.name in edges.get(name, ()):
                written.input[i] = writer.activation(name)
        if node.op_type in WEIGHTED and node.name in ranges.nodes and node.name not in keep:
            writer.weights(written, float(writer.step(flow.taken(node)[0])))
        writer.nodes.append(written)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.tensors)
    return _without_unused(model)


class Writer:
    """Collects the nodes of the quantised graph in order, and the tensors that they need."""

    def __init__(self, flow: Flow, ranges: Ranges) -> None:
        self.flow, self.ranges = flow, ranges
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.written: dict[tuple[Any, ...], str] = {}

    def step(self, name: str) -> np.float32:
        """The scale of an activation: what one step of its int8 values is worth."""
        step = self.ranges.largest[self.flow.scaled_as(name)] / LARGEST
        return np.float32(step if step >= TINY else 1)

    def activation(self, name: str) -> str:
        """The tensor rounded: QuantizeLinear and DequantizeLinear, once for all that take it."""
        if (key := (name,)) not in self.written:
            step = self.parameters(name, np.asarray(self.step(name)), np.uint8)
            whole = self.add("QuantizeLinear", name, [name, *step])
            self.written[key] = self.add("DequantizeLinear", name, [whole, *step])
        return self.written[key]

    def weights(self, node: "onnx.NodeProto", step: float) -> None:
        """int8 for the stored matrix of a node, and int32 for its bias, in steps of the products.

        `step` is the scale of the activation that it multiplies.
        """
        from onnx import numpy_helper

        stored = self.flow.stored
        for i in [i for i, name in enumerate(node.input[:2]) if name in stored]:
            name, axis = node.input[i], weight_axis(node, i, stored)
            values = numpy_helper.to_array(stored[name]).astype(np.float64)
            if not np.isfinite(values).all():
                raise ValueError(f"the weights {name!r} hold NaN or infinity")
            others = tuple(one for one in range(values.ndim) if one != axis)
            largest = np.abs(values).max(axis=None if axis is None else others, initial=0.0)
            scale = largest / self.ranges.weight_limit
            bias = self.bias(node, scale.shape)
            if bias is not None:  # a channel of zeros, too, has a bias, which has to fit into int32
                scale = np.maximum(scale, np.abs(bias) / BIAS_STEPS / step)
            scale = np.where(scale >= TINY / min(1.0, step), scale, 1.0).astype(np.float32)
            node.input[i] = self.constant(name, values, scale, np.int8, axis)
            if bias is not None:
                product = (np.float32(step) * scale).astype(np.float32)
                node.input[2] = self.constant(node.input[2], bias, product, np.int32, 0)

    def bias(self, node: "onnx.NodeProto", shape: tuple[int, ...]) -> NDArray[np.float64] | None:
        """The bias, where it has one value for each channel; others stay float32."""
        from onnx import numpy_helper

        stored = self.flow.stored
        if node.op_type == "MatMul" or len(node.input) < 3 or node.input[2] not in stored:
            return None
        factors = [one.f for one in node.attribute if one.name in ("alpha", "beta")]
        values = numpy_helper.to_array(stored[node.input[2]]).astype(np.float64)
        return values if values.shape == shape and set(factors) <= {1.0} else None

    def constant(
        self, name: str, values: NDArray[np.float64], scale: NDArray[np.float32],
        kind: type[np.integer[Any]], axis: int | None,
    ) -> str:  # fmt: skip
        """A stored tensor as integers and DequantizeLinear; nodes that share it share the integers."""
        from onnx import numpy_helper

        if (key := (name, axis, scale.tobytes())) not in self.written:
            same = sum(one[0] == name and len(one) == 3 for one in self.written)
            unique = f"{name}_{same}" if same else name
            limit = self.ranges.weight_limit if kind is np.int8 else np.iinfo(np.int32).max
            shape = [-1 if one == axis else 1 for one in range(values.ndim)]
            steps = np.rint(values / scale.astype(np.float64).reshape(shape if scale.ndim else ()))
            whole = np.clip(steps, -limit, limit).astype(kind)
            self.tensors.append(numpy_helper.from_array(whole, f"{unique}_quantized"))
            inputs = [f"{unique}_quantized", *self.parameters(unique, scale, kind)]
            self.written[key] = self.add("DequantizeLinear", unique, inputs, axis)
        return self.written[key]

    def parameters(self, name: str, scale: NDArray[Any], kind: type[np.integer[Any]]) -> list[str]:
        """Store a scale and its zero point."""
        from onnx import numpy_helper

        zero = np.full(scale.shape, MIDDLE if kind is np.uint8 else 0, kind)
        self.tensors.append(numpy_helper.from_array(scale, f"{name}_scale"))
        self.tensors.append(numpy_helper.from_array(zero, f"{name}_zero_point"))
        return [f"{name}_scale", f"{name}_zero_point"]

    def add(self, kind: str, name: str, inputs: list[str], axis: int | None = None) -> str:
        """Write a node, and name its output after it."""
        from onnx import helper

        node = helper.make_node(kind, inputs, [f"{name}_{kind}_Output"], f"{name}_{kind}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
        return node.output[0]


def weight_axis(
    node: "onnx.NodeProto", index: int, stored: dict[str, "onnx.TensorProto"]
) -> int | None:
    """Along which axis of its weights a node has its output channels; None: one scale for all."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return 1 if index == 1 and len(stored[node.input[1]].dims) == 2 else None


def for_tensorrt(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The same values in the form that TensorRT takes: zero points 0, and no integers but int8.

    Its parser refuses uint8, and DequantizeLinear of the int32 biases, which become float32.
    """
    from onnx import ModelProto, TensorProto, numpy_helper

    model, original = ModelProto(), model
    model.CopyFrom(original)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    left = []
    for node in model.graph.node:
        scaling = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        integers = stored.get(node.input[0]) if scaling else None
        if integers is not None and integers.data_type == TensorProto.INT32:
            values, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            exact = values.astype(np.float32) * scale
            model.graph.initializer.append(numpy_helper.from_array(exact, node.output[0]))
            continue
        left.append(type(node).FromString(node.SerializeToString()))
        if scaling and stored[node.input[2]].data_type == TensorProto.UINT8:
            zero = numpy_helper.to_array(stored[node.input[2]])
            if (zero != MIDDLE).any():
                raise ValueError(f"{node.name!r} has a zero point of {zero}, not {MIDDLE}")
            shifted = numpy_helper.from_array(np.zeros(zero.shape, np.int8), node.input[2])
            stored[node.input[2]].CopyFrom(shifted)
    del model.graph.node[:]
    model.graph.node.extend(left)
    return _without_unused(model)


def note(model: "onnx.ModelProto", rows: NDArray[np.int64]) -> "onnx.ModelProto":
    """The model, which now says what calibrated it."""
    digest = hashlib.sha256(np.asarray(rows).astype("<i8").tobytes()).hexdigest()
    for key, value in zip(NOTES, ("MinMax", str(len(rows)), digest), strict=True):
        model.metadata_props.add(key=key, value=value)
    return model


def _named(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """A copy in which every node has a name, the same in every copy."""
    from onnx import ModelProto

    from scripts.fp16_passes import name_nodes

    copy = ModelProto()
    copy.CopyFrom(model)
    name_nodes(copy.graph)
    return copy


def _without_unused(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Without the stored tensors that no node takes any more."""
    from scripts.fp16_passes import graphs

    used = {value.name for graph in graphs(model.graph) for value in graph.output}
    used |= {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    for i in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[i].name not in used:
            del model.graph.initializer[i]
    return model


if __name__ == "__main__":
    main()
