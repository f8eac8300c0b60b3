"""The largest magnitude of every float32 tensor inside an ONNX model, reduced inside the graph itself."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import Batch, Samples
from scripts.graphs.session import default_threads, open_session
from scripts.step import progress

if TYPE_CHECKING:
    import onnx

LIMIT = 65504.0  # the largest float16
Magnitudes = NDArray[np.float64]
Run = Callable[[Batch], Magnitudes]


class Watched(NamedTuple):
    """A tensor, the node that makes it, and the output that holds its largest magnitude."""

    name: str
    node: str
    operator: str
    scalar: str


@contextmanager
def opened(path: Path, device: str) -> Iterator[tuple[Run, list[Watched], list[str]]]:
    """(from a batch to the magnitude of each tensor, infinity where not finite; tensors; unseen).

    A model with its weights in a second file is opened from beside that file.
    """
    import onnx

    apart = path.with_name(path.name + ".data").exists()
    model, watched, unseen = watch(onnx.load(path, load_external_data=not apart))
    if apart:
        with tempfile.NamedTemporaryFile(prefix=".", suffix=".tmp", dir=path.parent) as file:
            file.write(model.SerializeToString())
            file.flush()
            session = open_session(Path(file.name), device, default_threads())
    else:
        session = open_session(model.SerializeToString(), device, default_threads())
    names = [one.scalar for one in watched]

    def run(batch: Batch) -> Magnitudes:
        found = np.array(session.run(names, batch), np.float64)
        return np.where(np.isnan(found), np.inf, found)

    yield run, watched, unseen


def measure(run: Run, watched: list[Watched], data: Samples, size: int) -> list[dict[str, Any]]:
    """One entry for each tensor; with the sample where it was seen, for those beyond half the range.

    Raises ValueError without samples.
    """
    if not len(data):
        raise ValueError("no samples: nothing was measured")
    largest, start = np.full(len(watched), -1.0), np.zeros(len(watched), np.int64)
    with progress(len(data), "onnx_fp32") as bar:
        for first in range(0, len(data), size):
            found = run(data.batch(first, first + size))
            more = found > largest
            largest[more], start[more] = found[more], first
            bar.update(min(size, len(data) - first))
    near = largest > LIMIT / 2
    sample = {}
    for first in np.unique(start[near]).tolist():
        stop = min(first + size, len(data))
        rows = np.stack([run(data.batch(i, i + 1)) for i in range(first, stop)])
        for i in np.flatnonzero(near & (start == first)).tolist():
            sample[i] = first + int(rows[:, i].argmax())
    return [
        {
            "name": one.name,
            "node": one.node,
            "operator": one.operator,
            "largest": float(value) if np.isfinite(value) else None,
        }
        | ({"sample": sample[i]} if i in sample else {})
        for i, (one, value) in enumerate(zip(watched, largest, strict=True))
    ]


def beyond(model: "onnx.ModelProto", range_content: dict[str, Any], limit: float) -> list[str]:
    """The tensors that `model`, converted from the measured one, holds in float16 beyond `limit`.

    `range_content`: that of onnx_fp32.range.json. Names are those of the float32 model, in its order.
    A float32 tensor counts too where it is cast to float16, or is the copy of one that was float16
    (inputs and outputs of a converted model).
    """
    import onnx

    from scripts.graphs.fp16_passes import FLOAT16, element_types, graphs

    types = element_types(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    half = set()
    for graph in graphs(model.graph):
        for node in graph.node:
            ends = [name for name in (*node.input, *node.output) if name]
            narrow = {name for name in ends if types.get(name, FLOAT16) == FLOAT16}
            half |= set(ends) if node.op_type == "Cast" and narrow else narrow
    names = [name for name in names_beyond(range_content["tensors"], limit) if name in half]
    return list(dict.fromkeys(names))


def watch(model: "onnx.ModelProto") -> tuple["onnx.ModelProto", list[Watched], list[str]]:
    """(a copy with the largest magnitude of each tensor as an output; the tensors; the unseen).

    The model's inputs are among the tensors, because they are cast to float16 too.
    """
    import onnx

    from scripts.graphs.fp16_passes import FLOAT, element_types

    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))
    watcher = _Watcher(copy.graph)
    stored = {tensor.name for tensor in copy.graph.initializer}
    types = element_types(copy.graph)
    inputs = [
        value.name
        for value in copy.graph.input
        if value.name not in stored and types[value.name] == FLOAT
    ]
    found = watcher.watch(copy.graph, inputs)
    copy.graph.output.extend(_scalar(one.scalar) for one in found)
    return copy, found, watcher.unseen


class _Watcher:
    """Adds reductions to a graph and to those inside it, under names that nothing else has."""

    def __init__(self, graph: "onnx.GraphProto") -> None:
        from scripts.graphs.fp16_passes import element_types, graphs

        taken = {name for one in graphs(graph) for node in one.node for name in node.output}
        taken |= element_types(graph).keys()
        self.prefix = "range"
        while any(name.startswith(self.prefix) for name in taken):
            self.prefix += "_"
        self.numbers = count()
        self.unseen: list[str] = []

    def watch(self, graph: "onnx.GraphProto", inputs: list[str]) -> list[Watched]:
        """Reduce the float32 tensors of `inputs`, of the graph and of those inside it."""
        from scripts.graphs.fp16_passes import FLOAT

        nodes: list[onnx.NodeProto] = []
        found = [Watched(name, "", "input", self._reduce(name, nodes)) for name in inputs]
        types = {value.name: value.type.tensor_type.elem_type
                 for value in (*graph.output, *graph.value_info)}  # fmt: skip
        for node in graph.node:
            made = [name for name in node.output if name]
            nodes.append(node)
            found += self._inside(node, nodes)
            for name in made:
                if types.get(name) == FLOAT:
                    scalar = self._reduce(name, nodes)
                    found.append(Watched(name, node.name, node.op_type, scalar))
                elif not types.get(name):
                    self.unseen.append(name)
        ordered = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(ordered)
        return found

    def _name(self) -> str:
        return f"{self.prefix}{next(self.numbers)}"

    def _reduce(self, name: str, nodes: list["onnx.NodeProto"]) -> str:
        """Append nodes that give the largest magnitude: 0 of an empty tensor, NaN where it holds one.

        ReduceMax passes over a NaN that is not the first value. A sum does not.
        """
        from onnx import helper

        def node(operator: str, *inputs: str, **attributes: Any) -> str:
            out = self._name()
            nodes.append(helper.make_node(operator, inputs, [out], out, **attributes))
            return out

        largest = node("Relu", node("ReduceMax", node("Abs", name), keepdims=0))
        total = node("ReduceL1", name, keepdims=0)
        return node("Where", node("IsNaN", total), total, largest)

    def _inside(self, node: "onnx.NodeProto", nodes: list["onnx.NodeProto"]) -> list[Watched]:
        """What is watched inside `node`, as further outputs of it; what they need comes after it."""
        from scripts.graphs.fp16_passes import subgraphs

        inner = list(subgraphs(node))
        if not inner:
            return []
        if node.op_type not in ("If", "Loop", "Scan"):
            self.unseen += [name for one in inner for each in one.node for name in each.output]
            return []
        own = len(inner[0].output) - (node.op_type == "Loop")  # its first output is the condition
        node.output.extend([""] * (own - len(node.output)))
        found = []
        for home, one in [(graph, one) for graph in inner for one in self.watch(graph, [])]:
            out = self._name()
            node.output.append(out)
            for graph in inner:  # the other branch gives 0
                graph.output.append(_scalar(one.scalar if graph is home else _zero(graph, out)))
            if node.op_type != "If":  # a vector, one value for each turn
                out = self._reduce(out, nodes)
            found.append(one._replace(scalar=out))
        for attribute in node.attribute:  # of a Scan, one for each output where it says them
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.extend([0] * len(found))
        return found


def _zero(graph: "onnx.GraphProto", name: str) -> str:
    """The name of a 0 in `graph`, which is to be the output `name` of the node around it."""
    from onnx import helper, numpy_helper

    zero = numpy_helper.from_array(np.zeros((), np.float32))
    graph.node.append(
        helper.make_node("Constant", [], [f"{name}_zero"], f"{name}_zero", value=zero)
    )
    return f"{name}_zero"


def _scalar(name: str) -> "onnx.ValueInfoProto":
    from onnx import helper

    from scripts.graphs.fp16_passes import FLOAT

    return helper.make_tensor_value_info(name, FLOAT, [])


def names_beyond(tensors: list[dict[str, Any]], limit: float) -> list[str]:
    """Names of those whose largest magnitude is above `limit` or not finite."""
    return [one["name"] for one in tensors if one["largest"] is None or one["largest"] > limit]
