"""The float16 form of a graph, by onnxconverter-common, with nodes that are to be kept in float32."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0  # of float16
SMALLEST = 5.960464477539063e-08  # above 0 in float16


class Prepared(NamedTuple):
    """A float32 model with what every conversion of it needs, done once."""

    model: "onnx.ModelProto"  # shapes inferred, every node named
    types: dict[str, int]  # element types of its tensors
    always: frozenset[str]  # nodes that stay float32 whatever is kept
    candidates: list[str]  # nodes that can be kept, in graph order


def prepare(model: "onnx.ModelProto") -> Prepared:
    """What `convert` does once for a model. Raises ValueError where it holds float16 already."""
    import onnx
    from onnxconverter_common import float16

    from scripts.graphs import fp16_passes as passes

    if any(tensor.data_type == passes.FLOAT16 for tensor in model.graph.initializer):
        raise ValueError("it holds float16 already: make the .pth model float32 throughout")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    types = passes.element_types(model.graph)
    passes.name_nodes(model.graph)
    for graph in passes.graphs(model.graph):
        passes.drop_idle_casts(graph, types)
        passes.write_constants(graph)
    operators = {*float16.DEFAULT_OP_BLOCK_LIST, *passes.FLOAT32_ONLY}
    nodes = [one for node in model.graph.node for one in passes.walk(node)]
    always = frozenset(node.name for node in nodes if node.op_type in operators)
    found = [
        node.name
        for node in nodes
        if node.name not in always
        and node.op_type not in passes.IDLE
        and all(types.get(name) for one in passes.walk(node) for name in one.output if name)
        and any(types.get(name) == passes.FLOAT for name in (*node.input, *node.output))
    ]
    return Prepared(model, types, always, found)


def candidates(model: "onnx.ModelProto | Prepared") -> list[str]:
    """The nodes that conversion turns to float16 and that can be kept, in graph order.

    Those of a subgraph stand after the If or Loop that holds it. Named as in the float32 model
    after fp16_passes.name_nodes. A node whose results are of unknown type cannot be kept.
    """
    return (model if isinstance(model, Prepared) else prepare(model)).candidates


def convert(
    model: "onnx.ModelProto | Prepared", keep: frozenset[str] = frozenset()
) -> "onnx.ModelProto":
    """The model with float16 inside, except the nodes named in `keep` and those that always stay.

    What passes between two kept nodes, or between one and an input or output, is not rounded. A
    kept If or Loop keeps all that is inside. For many conversions of one model, `prepare` it first.
    Raises ValueError for a value that float16 cannot hold, and for a name that cannot be kept.
    """
    import onnx
    from onnxconverter_common import float16

    from scripts.graphs import fp16_passes as passes
    from scripts.graphs.fp16_keep import (
        cast_captured,
        drop_unused,
        join_float32,
        neighbours,
        skip_identities,
        store_constants,
    )

    given = model if isinstance(model, Prepared) else prepare(model)
    if unknown := keep - {*given.candidates, *given.always}:
        raise ValueError(f"it has no node {min(unknown)!r} that could be kept in float32")
    mixed = onnx.ModelProto()
    mixed.CopyFrom(given.model)
    nodes = [one for node in mixed.graph.node for one in passes.walk(node)]
    original = {node.name for node in nodes}
    blocked, near = set(given.always), set[str]()
    if keep:
        kept = {one.name for node in nodes if node.name in keep for one in passes.walk(node)}
        skip_identities(mixed.graph)
        near = neighbours(mixed.graph, kept, blocked, given.types)
        blocked |= near
        store_constants(mixed.graph, near)
    for graph in passes.graphs(mixed.graph):
        passes.split_shared(graph, blocked)
    passes.separate_outputs(mixed.graph, blocked)
    passes.separate_captured(mixed.graph, blocked)
    if keep:
        drop_unused(mixed.graph, original)
    tiny = refuse_large(mixed, blocked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mixed = float16.convert_float_to_float16(
            mixed,
            check_fp16_ready=False,
            min_positive_val=SMALLEST,
            max_finite_val=LARGEST,
            keep_io_types=True,
            op_block_list=[],
            node_block_list=list(blocked),
        )
    for warning in caught:  # of what it changed; tiny values are counted, the rest refused above
        number = _truncated(str(warning.message))
        if number is None or SMALLEST < abs(number) < LARGEST:
            raise ValueError(f"the converter warned: {warning.message}")
    passes.retype_casts(mixed.graph, original, blocked)
    passes.cast_statistics(mixed.graph, blocked)
    if keep:
        cast_captured(mixed.graph, set(keep))
        join_float32(mixed.graph, original, blocked, near)
        drop_unused(mixed.graph, original)
    passes.sort_nodes(mixed.graph)
    del mixed.graph.value_info[:]  # the converter's; they no longer agree with the casts
    mixed.metadata_props.add(key=passes.TINY_KEY, value=str(tiny))
    return mixed


def refuse_large(model: "onnx.ModelProto", blocked: set[str]) -> int:
    """How many stored values are too small for float16 and become its smallest above 0.

    Raises ValueError naming the first stored value beyond float16's range.
    """
    from onnx import numpy_helper

    tiny = 0
    for name, tensor in stored_floats(model, blocked):
        values = numpy_helper.to_array(tensor)
        finite = values[np.isfinite(values)]
        if finite.size and np.abs(finite).max() > LARGEST:
            worst = finite[np.argmax(np.abs(finite))]
            advice = (
                "; a mask can be float('-inf') instead" if worst < 0 and finite.size == 1 else ""
            )
            raise ValueError(
                f"float16 cannot hold {worst:.6g}, a value of {name!r} (its largest is "
                f"{LARGEST:.0f}{advice})"
            )
        tiny += int(((values != 0) & (np.abs(values) < SMALLEST)).sum())
    return tiny


def stored_floats(
    model: "onnx.ModelProto", blocked: set[str]
) -> Iterator[tuple[str, "onnx.TensorProto"]]:
    """(name, tensor) of every float32 value in the file, except those only `blocked` nodes use."""
    from scripts.graphs import fp16_passes as passes

    for graph in passes.graphs(model.graph):
        kept = {name for node in graph.node if node.name in blocked for name in node.input}
        for tensor in graph.initializer:
            if tensor.data_type == passes.FLOAT and tensor.name not in kept:
                yield tensor.name, tensor
        for node in graph.node:
            for attribute in node.attribute if node.name not in blocked else ():
                if attribute.t.data_type == passes.FLOAT:
                    yield node.name, attribute.t


def _truncated(message: str) -> float | None:
    """The number in the converter's "the float32 number X will be truncated to Y"."""
    words = message.split()
    if words[:3] != ["the", "float32", "number"]:
        return None
    return float(words[3])
