"""For `make bench`: the search for the nodes to keep in float32 against onnxconverter-common's.

The same float32 model, the same samples and the same check (no verdict flips) for both:
`auto_convert_mixed_precision` halves segments until each converts; `scripts/repair/ranking.py` ranks
first. Each try is one conversion and one run in ONNX Runtime.
"""

import contextlib
import io
import time
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.graphs.fp16 import candidates, convert, prepare
from scripts.graphs.session import default_threads, open_session, run_session
from scripts.repair.ranking import localise
from scripts.repair.repair_verdicts import ROUGH
from scripts.repair.search import repair
from scripts.repair.trials import Outcome, Remembered
from scripts.verdicts.thresholds import is_positive, middle

BLOCKS, WIDTH, SAMPLES = 20, 64, 512
SPOILED = (6, 13)  # blocks whose second weights are near float16's smallest value


def measured() -> dict[str, Any]:
    """Tries and seconds of both, and the nodes that each left in float32."""
    model, x = subject()
    reference = run(model, x)
    prepared = prepare(model)
    spoiled = frozenset(f"block{i}_second" for i in SPOILED)
    pure, mended = run(convert(prepared), x), run(convert(prepared, spoiled), x)
    threshold = between(reference, pure, mended)
    right = is_positive(reference, threshold)

    def evaluate(keep: frozenset[str]) -> Outcome:
        z = run(convert(prepared, keep), x)
        flips = int((is_positive(z, threshold) != right).sum())
        return Outcome(flips, float(np.abs(z - reference).sum()), z)

    start = time.perf_counter()
    tried = Remembered(evaluate)
    nodes = candidates(prepared)
    found = repair(nodes, tried, localise(nodes, tried, ROUGH))
    ours = time.perf_counter() - start
    if found.flips_after:
        raise ValueError(f"our search leaves {found.flips_after} flips")
    runs, seconds, kept = theirs(model, x, threshold, right)
    return {
        "nodes": len(nodes),
        "ours": {"runs": len(tried.known), "seconds": ours, "kept": len(found.kept)},
        "theirs": {"runs": runs, "seconds": seconds, "kept": kept},
    }


def theirs(
    model: Any, x: NDArray[np.float32], threshold: float, right: NDArray[np.bool_]
) -> tuple[int, float, int]:
    """(tries, seconds, nodes left in float32) of auto_convert_mixed_precision."""
    from onnxconverter_common import auto_mixed_precision

    runs = -1  # the first is of the float32 model with itself

    def check(_: Any, outputs: Any) -> bool:
        nonlocal runs
        runs += 1
        return bool((is_positive(outputs[0][:, 0], threshold) == right).all())

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = auto_mixed_precision.auto_convert_mixed_precision(
            model, {"x": x}, check, keep_io_types=True
        )
    seconds = time.perf_counter() - start
    stored = {tensor.name for tensor in done.graph.initializer if tensor.data_type == 1}
    kept = sum(any(name in stored for name in node.input) for node in done.graph.node)
    return runs, seconds, kept


def between(
    reference: NDArray[np.float32], pure: NDArray[np.float32], mended: NDArray[np.float32]
) -> float:
    """A threshold that flips verdicts of `pure` and none of `mended`: the one with the most flips."""
    s = np.sort(reference.astype(np.float64))
    cuts = [middle(float(low), float(high)) for low, high in pairwise(s)]
    flips = [
        -1
        if (is_positive(mended, t) != is_positive(reference, t)).any()
        else int((is_positive(pure, t) != is_positive(reference, t)).sum())
        for t in cuts
    ]
    if max(flips) < 1:
        raise ValueError("no threshold at which float16 flips a verdict that the repair takes back")
    return cuts[int(np.argmax(flips))]


def run(model: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n,) in ONNX Runtime on the CPU."""
    session = open_session(model.SerializeToString(), "cpu", default_threads())
    return np.asarray(run_session(session, {"x": x})[:, 0], np.float32)


def subject() -> tuple[Any, NDArray[np.float32]]:
    """A network of residual blocks with two spoiled, 82 nodes, and its inputs."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, stored = [], []

    def weight(name: str, rows: int, columns: int, scale: float) -> str:
        values = (random.normal(size=(rows, columns)) * scale / rows**0.5).astype(np.float32)
        stored.append(numpy_helper.from_array(values, name))
        return name

    last = "x"
    for i in range(BLOCKS):
        b, large = f"block{i}_", 4e3 if i in SPOILED else 1.0
        first, second = (
            weight(b + "w1", WIDTH, WIDTH, large),
            weight(b + "w2", WIDTH, WIDTH, 0.5 / large),
        )
        for operator, name, inputs in (
            ("MatMul", "first", [last, first]),
            ("Relu", "relu", [b + "first"]),
            ("MatMul", "second", [b + "relu", second]),
            ("Add", "add", [b + "second", last]),
        ):
            nodes.append(helper.make_node(operator, inputs, [b + name], b + name))
        last = b + "add"
    nodes.append(helper.make_node("Tanh", [last], ["tanh"], "tanh"))
    nodes.append(
        helper.make_node("MatMul", ["tanh", weight("w", WIDTH, 1, 1)], ["output"], "output")
    )
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
            for name, size in (("x", WIDTH), ("output", 1))]  # fmt: skip
    graph = helper.make_graph(nodes, "bench", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model, random.normal(size=(SAMPLES, WIDTH)).astype(np.float32)
