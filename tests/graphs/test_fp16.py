"""Float16: each trap of onnxconverter-common in a graph of its own, refused there, mended here.

`alone` calls the converter as a user would; the graphs in TRAPS are those on which it fails.
"""

import copy
import json
import random
import warnings
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16

from scripts.backends.onnxruntime import convert_fp16
from scripts.backends.onnxruntime import prove as prove_precision
from scripts.backends.onnxruntime.convert_fp32 import quiet
from scripts.graphs.fp16 import LARGEST, candidates, convert, prepare
from scripts.graphs.fp16_passes import TINY_KEY, graphs, name_nodes, sort_nodes
from scripts.graphs.half_rounding import rounded
from scripts.graphs.session import load_elsewhere
from scripts.graphs.shares import shares

onnxruntime.set_default_logger_severity(4)
node = helper.make_node
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL
ROWS = 3


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def weights(name, *shape):
    seed = sum(map(ord, name))
    return tensor(name, np.random.default_rng(seed).normal(size=shape))


def value(name, shape=("n", 4), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph_of(nodes, inputs=None, outputs=None, stored=(), opset=18):
    """A checked model; x (n, 4) in and y (n, 4) out unless told otherwise; w is (4, 4)."""
    inputs, outputs = inputs or [value("x")], outputs or [value("y")]
    used = {name for one in nodes for name in one.input}
    first = [weights("w", 4, 4)] if "w" in used else []
    graph = helper.make_graph(nodes, "g", inputs, outputs, [*first, *stored])
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def matmul(source="x", out="a"):
    return node("MatMul", [source, "w"], [out], name=f"matmul_{out}")


def branch(nodes, out, stored=()):
    return helper.make_graph(nodes, f"branch_{out}", [], [value(out)], list(stored))


def if_graph(then, otherwise, before=(), outputs=None, after="Relu"):
    """x @ w = a, then an If on c between two branches that capture outer tensors."""
    nodes = [matmul(), *before]
    nodes.append(node("If", ["c"], ["b"], name="if", then_branch=then, else_branch=otherwise))
    nodes.append(node(after, ["b"], ["y"], name="after"))
    return graph_of(nodes, [value("x"), value("c", [], BOOL)], outputs, [weights("t", 4)])


def times_t():
    return branch([node("Mul", ["a", "t"], ["q"], name="q")], "q")


def unnamed_nodes():
    return graph_of(
        [
            node("Relu", ["x"], ["a"]),
            node("MatMul", ["x", "w"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ]
    )


def output_used_inside():
    nodes = [matmul(out="y"), node("Relu", ["y"], ["z"], name="relu")]
    return graph_of(nodes, outputs=[value("y"), value("z")])


def output_captured_by_a_branch():
    then = branch([node("Add", ["a", "t"], ["p"], name="p")], "p")
    return if_graph(then, times_t(), outputs=[value("y"), value("a")])


def cast_from(kind):
    nodes = [
        matmul(),
        node("Cast", ["k"], ["f"], to=FLOAT, name="cast"),
        node("Mul", ["a", "f"], ["y"], name="mul"),
    ]
    return graph_of(nodes, [value("x"), value("k", kind=kind)])


def cast_through_double():
    nodes = [
        matmul(),
        node("Cast", ["a"], ["d"], to=DOUBLE, name="up"),
        node("Cast", ["d"], ["f"], to=FLOAT, name="down"),
        node("Mul", ["a", "f"], ["y"], name="mul"),
    ]
    return graph_of(nodes)


def cast_of_a_verdict():
    nodes = [
        matmul(),
        node("Greater", ["a", "t"], ["g"], name="greater"),
        node("Cast", ["g"], ["y"], to=FLOAT, name="cast"),
    ]
    return graph_of(nodes, stored=[weights("t", 1)])


def cast_for_a_blocked_operator():
    nodes = [
        node("Cast", ["k"], ["f"], to=FLOAT, name="cast"),
        node("Max", ["f", "t"], ["a"], name="max"),
        matmul("a", "y"),
    ]
    return graph_of(nodes, [value("k", kind=INT64)], stored=[weights("t", 1)])


def idle_cast(after):
    """Cast from float to float of the input, of an inner tensor, of a blocked one, or at the end."""
    if after == "input":
        nodes = [node("Cast", ["x"], ["f"], to=FLOAT, name="cast"), matmul("f", "y")]
    elif after == "inner":
        nodes = [matmul(), node("Cast", ["a"], ["f"], to=FLOAT, name="cast"), matmul("f", "y")]
    elif after == "output":
        nodes = [matmul(), node("Cast", ["a"], ["y"], to=FLOAT, name="cast")]
    else:
        nodes = [
            matmul(),
            node("Max", ["a", "t"], ["b"], name="max"),
            node("Cast", ["b"], ["f"], to=FLOAT, name="cast"),
            matmul("f", "y"),
        ]
    return graph_of(nodes, stored=[weights("t", 1)] if after == "blocked" else [])


def shared_with(operator):
    nodes = [
        matmul(),
        node(operator, ["a", "t"], ["b"], name="blocked"),
        node("Add", ["b", "t"], ["y"], name="add"),
    ]
    return graph_of(nodes, stored=[weights("t", 4)])


def resize(shared):
    """A Resize between two operators that are converted; `shared`: they use its scales too."""
    nodes = [
        node("Conv", ["x", "k"], ["a"], pads=[1] * 4, name="conv"),
        node("Resize", ["a", "", "scales"], ["b"], mode="linear", name="resize"),
    ]
    stored = [weights("k", 4, 1, 3, 3), tensor("scales", [1, 1, 2, 2])]
    if shared:
        stored.append(tensor("shape", [1, 4, 1, 1], np.int64))
        nodes.append(node("Reshape", ["scales", "shape"], ["factors"], name="reshape"))
        nodes.append(node("Mul", ["b", "factors"], ["y"], name="mul"))
    else:
        nodes.append(node("Relu", ["b"], ["y"], name="relu"))
    return graph_of(nodes, [value("x", ["n", 1, 4, 4])], [value("y", ["n", 4, 8, 8])], stored)


def constant(blocked=False, **attribute):
    middle = [node("Max", ["a", "k"], ["b"], name="max")] if blocked else []
    nodes = [
        node("Constant", [], ["k"], name="constant", **attribute),
        matmul(),
        *middle,
        node("Mul", ["b" if blocked else "a", "k"], ["y"], name="mul"),
    ]
    return graph_of(nodes)


def constant_of_shape(**attribute):
    nodes = [
        matmul(),
        node("Shape", ["a"], ["s"], name="shape"),
        node("ConstantOfShape", ["s"], ["k"], name="filled", **attribute),
        node("Add", ["a", "k"], ["y"], name="add"),
    ]
    return graph_of(nodes)


def layer_normalization(statistics=False):
    nodes = [node("LayerNormalization", ["x", "g", "s"], ["a"], name="norm", axis=-1)]
    if statistics:
        nodes[0].output.extend(["mean", "deviation"])
        nodes += [matmul("a", "b"), node("Mul", ["b", "deviation"], ["y"], name="mul")]
    else:
        nodes.append(matmul("a", "y"))
    return graph_of(nodes, stored=[weights("g", 4), weights("s", 4)])


def eye_like(stored, **attribute):
    nodes = [
        matmul(),
        node("EyeLike", ["like"], ["e"], name="eye", **attribute),
        node("MatMul", ["a", "e"], ["y"], name="product"),
    ]
    return graph_of(nodes, stored=[stored])


def random_like():
    """A dtype attribute on a node whose result is next to nothing."""
    noise = node("RandomNormalLike", ["a"], ["e"], dtype=FLOAT, scale=1e-9, seed=1.0, name="noise")
    return graph_of([matmul(), noise, node("Add", ["a", "e"], ["y"], name="add")])


def if_captures(name):
    then = branch([node("Add", [name, "t"], ["p"], name="p")], "p")
    return if_graph(then, times_t())


def if_captures_input_only():
    then = branch([node("Add", ["x", "t"], ["p"], name="p")], "p")
    otherwise = branch([node("Mul", ["x", "t"], ["q"], name="q")], "q")
    choice = node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=otherwise)
    return graph_of([choice], [value("x"), value("c", [], BOOL)], stored=[weights("t", 4)])


def if_unnamed():
    then = branch([node("Add", ["a", "t"], ["p"])], "p")
    return if_graph(then, branch([node("Mul", ["a", "t"], ["q"])], "q"))


def if_with_its_own_values():
    then = branch([node("Add", ["a", "u"], ["p"], name="p")], "p", [weights("u", 4)])
    constant_two = node("Constant", [], ["two"], value_float=2.0, name="two")
    otherwise = branch([constant_two, node("Mul", ["a", "two"], ["q"], name="q")], "q")
    return if_graph(then, otherwise, [node("Abs", ["t"], ["unused"], name="abs")])


def if_with_a_cast():
    then = branch(
        [
            node("Shape", ["a"], ["s"], name="shape"),
            node("Cast", ["s"], ["f"], to=FLOAT, name="cast"),
            node("ReduceMax", ["f"], ["m"], keepdims=0, name="reduce"),
            node("Mul", ["a", "m"], ["p"], name="p"),
        ],
        "p",
    )
    return if_graph(then, times_t())


def if_in_if():
    inner = node(
        "If",
        ["c"],
        ["p"],
        name="inner",
        then_branch=branch([node("Add", ["a", "t"], ["p1"], name="p1")], "p1"),
        else_branch=branch([node("Sub", ["a", "t"], ["p2"], name="p2")], "p2"),
    )
    return if_graph(branch([inner], "p"), times_t())


def if_shares_with_a_blocked_operator():
    then = branch([node("Add", ["m", "t"], ["p"], name="p")], "p")
    return if_graph(then, times_t(), [node("Max", ["a", "t"], ["m"], name="max")])


def blocked_inside_a_branch():
    nodes = [
        node("Relu", ["a"], ["r"], name="relu"),
        node("Max", ["r", "t"], ["m"], name="max"),
        node("Add", ["m", "a"], ["p"], name="add"),
    ]
    return if_graph(branch(nodes, "p"), times_t())


def loop():
    body = helper.make_graph(
        [
            node("MatMul", ["state", "w"], ["product"], name="body_matmul"),
            node("Tanh", ["product"], ["next"], name="body_tanh"),
            node("Identity", ["go"], ["go_on"], name="body_go"),
        ],
        "body",
        [value("turn", [], INT64), value("go", [], BOOL), value("state")],
        [value("go_on", [], BOOL), value("next")],
    )
    turns = tensor("turns", 3, np.int64)
    nodes = [node("Loop", ["turns", "", "x"], ["y"], name="loop", body=body)]
    return graph_of(nodes, stored=[turns, weights("w", 4, 4)])


def blocked_at_the_output(operator):
    nodes = [matmul(), node(operator, ["a", "t"], ["y"], name="blocked")]
    return graph_of(nodes, stored=[weights("t", 4)])


def blocked_at_the_input():
    return graph_of(
        [node("Max", ["x", "t"], ["a"], name="max"), matmul("a", "y")], stored=[weights("t", 4)]
    )


def two_blocked_in_a_row():
    nodes = [
        matmul(),
        node("Max", ["a", "t"], ["b"], name="max"),
        node("Min", ["b", "u"], ["c"], name="min"),
        matmul("c", "y"),
    ]
    return graph_of(nodes, stored=[weights("t", 4), weights("u", 4)])


def shape_arithmetic():
    """Numbers of the shape that pass through float: Cast, Mul, Floor, Cast."""
    nodes = [
        node("Shape", ["x"], ["s"], name="shape"),
        node("Cast", ["s"], ["f"], to=FLOAT, name="to_float"),
        node("Mul", ["f", "half"], ["h"], name="mul"),
        node("Floor", ["h"], ["l"], name="floor"),
        node("Cast", ["l"], ["i"], to=INT64, name="to_int"),
        node("Expand", ["one", "i"], ["e"], name="expand"),
        node("ReduceSum", ["e"], ["sum"], keepdims=0, name="sum"),
        matmul(),
        node("Mul", ["a", "sum"], ["y"], name="times"),
    ]
    return graph_of(nodes, stored=[tensor("half", [1, 0.5]), tensor("one", [1])])


def two_outputs_of_one_node():
    nodes = [matmul(), node("Split", ["a"], ["y", "z"], axis=1, num_outputs=2, name="split")]
    return graph_of(nodes, outputs=[value("y", ["n", 2]), value("z", ["n", 2])])


def top_k():
    nodes = [
        matmul(),
        node("TopK", ["a", "k"], ["v", "i"], name="top"),
        node("Add", ["v", "t"], ["y"], name="add"),
    ]
    stored = [weights("t", 1), tensor("k", [2], np.int64)]
    return graph_of(nodes, outputs=[value("y", ["n", 2])], stored=stored)


# On each of these the converter alone gives a file that the checker or ONNX Runtime refuses, or
# one whose inputs and outputs have another type.
TRAPS = {
    "unnamed nodes, one input for two": unnamed_nodes,
    "output used inside": output_used_inside,
    "output captured by a branch": output_captured_by_a_branch,
    "cast from int64": lambda: cast_from(INT64),
    "cast from bool": lambda: cast_from(BOOL),
    "cast from double": lambda: cast_from(DOUBLE),
    "cast to double and back": cast_through_double,
    "cast of a verdict to the output": cast_of_a_verdict,
    "cast before a blocked operator": cast_for_a_blocked_operator,
    "idle cast of the input": lambda: idle_cast("input"),
    "idle cast inside": lambda: idle_cast("inner"),
    "idle cast of the output": lambda: idle_cast("output"),
    "idle cast after a blocked operator": lambda: idle_cast("blocked"),
    "initializer shared with Max": lambda: shared_with("Max"),
    "initializer shared with Min": lambda: shared_with("Min"),
    "initializer shared with Resize": lambda: resize(shared=True),
    "Constant value_float": lambda: constant(value_float=0.5),
    "Constant value_floats": lambda: constant(value_floats=[0.5, 1, 2, 3]),
    "Constant value_float shared with Max": lambda: constant(blocked=True, value_float=0.5),
    "ConstantOfShape without value": constant_of_shape,
    "EyeLike of floats with dtype": lambda: eye_like(weights("like", 4, 4), dtype=FLOAT),
    "EyeLike of integers with dtype": lambda: eye_like(
        tensor("like", np.zeros((4, 4)), np.int64), dtype=FLOAT
    ),
    "RandomNormalLike with dtype": random_like,
    "LayerNormalization with its statistics": lambda: layer_normalization(statistics=True),
    "If that captures a tensor": lambda: if_captures("a"),
    "If that captures a tensor and the input": lambda: if_captures("x"),
    "If that captures only the input": if_captures_input_only,
    "If with unnamed nodes": if_unnamed,
    "If with values of its own": if_with_its_own_values,
    "If with a cast": if_with_a_cast,
    "If in If": if_in_if,
    "If that shares with a blocked operator": if_shares_with_a_blocked_operator,
    "blocked operator in a branch": blocked_inside_a_branch,
    "Max at the output": lambda: blocked_at_the_output("Max"),
    "Min at the output": lambda: blocked_at_the_output("Min"),
    "numbers of the shape": shape_arithmetic,
}
# These the converter manages alone; they must not get worse.
PLAIN = {
    "Resize": lambda: resize(shared=False),
    "Constant value": lambda: constant(value=weights("", 4)),
    "ConstantOfShape with value": lambda: constant_of_shape(value=tensor("", [2.5])),
    "LayerNormalization": layer_normalization,
    "EyeLike without dtype": lambda: eye_like(weights("like", 4, 4)),
    "Loop": loop,
    "blocked at the input": blocked_at_the_input,
    "two blocked in a row": two_blocked_in_a_row,
    "two outputs of one node": two_outputs_of_one_node,
    "TopK": top_k,
}


def feeds(model, seed):
    random = np.random.default_rng(seed)
    made = {}
    for one in model.graph.input:
        shape = [axis.dim_value or ROWS for axis in one.type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type)
        floating = kind.kind == "f"
        drawn = random.normal(size=shape) if floating else random.integers(0, 2, shape)
        made[one.name] = np.asarray(drawn, kind)
    return made


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def alone(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float16.convert_float_to_float16(copy.deepcopy(model), keep_io_types=True)


def ends(model):
    return [
        (one.name, one.type.tensor_type.elem_type)
        for one in (*model.graph.input, *model.graph.output)
    ]


def check_converted(model, converted):
    """Checked in full, loads, runs, same inputs and outputs, nearly the same numbers."""
    onnx.checker.check_model(converted, full_check=True)
    assert ends(converted) == ends(model)
    for seed in range(4):
        inputs = feeds(model, seed)
        for wanted, found in zip(run(model, inputs), run(converted, inputs), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("build", TRAPS.values(), ids=TRAPS.keys())
def test_the_converter_alone_fails_on_a_trap(build):
    model = build()
    with pytest.raises(Exception):  # noqa: B017  it is the checker's, ONNX Runtime's or an assert
        check_converted(model, alone(model))


@pytest.mark.parametrize("build", {**TRAPS, **PLAIN}.values(), ids={**TRAPS, **PLAIN}.keys())
def test_ours_converts_checks_runs_and_agrees(build):
    model = build()
    check_converted(model, convert(model))


@pytest.mark.parametrize("build", PLAIN.values(), ids=PLAIN.keys())
def test_the_plain_graphs_are_plain(build):
    model = build()
    check_converted(model, alone(model))


def test_the_model_given_is_not_changed():
    model = unnamed_nodes()
    before = model.SerializeToString()
    convert(model)
    assert model.SerializeToString() == before


def test_the_matrix_product_is_computed_in_float16():
    found = shares(convert(output_used_inside()))
    assert found["weight_share_float16"] == 1
    assert found["node_share_float16"] == 1


def stored_in(model):
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def with_values(values):
    """x @ w + v, where v holds these values and ones."""
    stored = tensor("v", [*values, 1, 1, 1][:4])
    return graph_of([matmul(), node("Add", ["a", "v"], ["y"], name="add")], stored=[stored])


@pytest.mark.parametrize("number", [20000, 60000, -60000, LARGEST])
def test_large_values_are_kept_where_the_converter_alone_clamps_them(number):
    model = with_values([number])
    assert abs(stored_in(alone(model))["v"][0]) == 10000
    converted = convert(model)
    assert stored_in(converted)["v"][0] == np.float16(number)
    check_converted(model, converted)


@pytest.mark.parametrize("number", [70000.0, -1e6, 65505.0, -3.4e38])
def test_values_beyond_float16_are_refused_by_name(number):
    with pytest.raises(ValueError, match=r"float16 cannot hold .* a value of 'v'") as caught:
        convert(with_values([number]))
    assert f"{abs(number):.6g}" in str(caught.value)
    assert "65504" in str(caught.value)


def test_a_large_value_in_a_constant_is_refused_by_name():
    with pytest.raises(ValueError, match=r"70000.*'constant'"):
        convert(constant(value_float=70000.0))


def test_a_large_value_in_a_branch_is_refused_by_name():
    big = tensor("big", [70000.0] * 4)
    then = branch([node("Add", ["a", "big"], ["p"], name="p")], "p", [big])
    with pytest.raises(ValueError, match="'big'"):
        convert(if_graph(then, times_t()))


def test_a_large_value_for_a_blocked_operator_stays_float32():
    nodes = [matmul(), node("Min", ["a", "top"], ["b"], name="min"), matmul("b", "y")]
    model = graph_of(nodes, stored=[tensor("top", [1e6])])
    converted = convert(model)
    assert stored_in(converted)["top"].dtype == np.float32
    assert stored_in(converted)["top"][0] == 1e6
    check_converted(model, converted)


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinity_is_kept_as_in_a_mask(number):
    nodes = [
        matmul(),
        node("Where", ["c", "a", "mask"], ["b"], name="where"),
        node("Softmax", ["b"], ["y"], name="softmax"),
    ]
    model = graph_of(nodes, [value("x"), value("c", kind=BOOL)], stored=[tensor("mask", number)])
    converted = convert(model)
    assert stored_in(converted)["mask"] == np.float16(number)
    onnx.checker.check_model(converted, full_check=True)
    if number < 0:
        inputs = feeds(model, 0)
        inputs["c"][:, 0] = True
        np.testing.assert_allclose(run(converted, inputs)[0], run(model, inputs)[0], atol=1e-2)


def tiny_in(model):
    return {entry.key: entry.value for entry in model.metadata_props}[TINY_KEY]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1e-9, -1e-12, 0.0, 1.0], 2),
        ([0.0, -0.0, 1.0, -1.0], 0),
        ([2.0**-24, -(2.0**-24), 2.0**-25, 1.0], 1),
        ([1e-40, 1e-30, 1e-20, 1e-10], 4),
    ],
)
def test_values_too_small_for_float16_are_counted(values, count):
    converted = convert(with_values(values))
    assert tiny_in(converted) == str(count)
    kept = stored_in(converted)["v"].astype(np.float64)
    np.testing.assert_allclose(kept, values, atol=2.0**-24, rtol=1e-3)


def test_tiny_values_are_counted_in_constants_too():
    assert tiny_in(convert(constant(value_floats=[1e-9, 1.0, 2.0, 1e-10]))) == "2"


def test_names_become_unique_in_subgraphs_too():
    model = if_unnamed()
    name_nodes(model.graph)
    names = [one.name for graph in graphs(model.graph) for one in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_sorting_puts_nodes_after_what_they_use():
    model = output_used_inside()
    backwards = [copy.deepcopy(one) for one in model.graph.node][::-1]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    assert [one.op_type for one in model.graph.node] == ["Relu", "MatMul"]
    sort_nodes(model.graph)
    assert [one.op_type for one in model.graph.node] == ["MatMul", "Relu"]


def test_sorting_refuses_a_cycle():
    nodes = [node("Relu", ["b"], ["a"], name="one"), node("Relu", ["a"], ["b"], name="two")]
    graph = helper.make_graph(nodes, "g", [], [])
    with pytest.raises(ValueError, match="cycle through 'one'"):
        sort_nodes(graph)


# ---- nodes kept in float32 ----------------------------------------------------------------------


def casts_of_large_numbers():
    """60001 as an integer, which float16 has not, cast for a node; and a float cast to double."""
    nodes = [
        node("Cast", ["k"], ["f"], to=FLOAT, name="cast"),
        node("Mul", ["x", "f"], ["a"], name="mul"),
        node("Cast", ["a"], ["d"], to=DOUBLE, name="up"),
        node("Floor", ["d"], ["e"], name="floor"),
        node("Cast", ["e"], ["g"], to=FLOAT, name="down"),
        node("Mul", ["g", "small"], ["y"], name="last"),
    ]
    return graph_of(nodes, stored=[tensor("k", 60001, np.int64), tensor("small", 1e-4)])


def identities():
    """A weight that two nodes share through an Identity, and one between two nodes."""
    nodes = [
        node("Identity", ["w"], ["v"], name="weight"),
        node("MatMul", ["x", "v"], ["a"], name="first"),
        node("Identity", ["a"], ["b"], name="between"),
        node("MatMul", ["b", "v"], ["c"], name="second"),
        node("Identity", ["c"], ["y"], name="end"),
    ]
    return graph_of(nodes)


def one_tensor_for_several():
    """A residual that is also squared, captured by a branch, given out, and taken by a Max."""
    then = branch([node("Add", ["a", "t"], ["p"], name="p")], "p")
    before = [
        node("Mul", ["a", "a"], ["square"], name="square"),
        node("Max", ["a", "square"], ["most"], name="max"),
        node("Add", ["most", "a"], ["z"], name="residual"),
    ]
    return if_graph(then, times_t(), before, [value("y"), value("z"), value("a")])


def captured_beside_one_kept():
    """The tensor that a branch takes goes to one other node: the converter alone loses it."""
    then = branch([node("Add", ["a", "t"], ["p"], name="p")], "p")
    before = [node("Tanh", ["a"], ["z"], name="tanh")]
    return if_graph(then, times_t(), before, [value("y"), value("z")])


def layers():
    """BatchNormalization, Resize, LayerNormalization, Softmax, and a Constant for two nodes."""
    nodes = [
        node("Conv", ["x", "k"], ["a"], pads=[1] * 4, name="conv"),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"], name="batch"),
        node("Resize", ["b", "", "scales"], ["c"], mode="linear", name="resize"),
        node("LayerNormalization", ["c", "g"], ["d"], name="norm"),
        node("Transpose", ["d"], ["e"], perm=[0, 1, 3, 2], name="transpose"),
        node("MatMul", ["d", "e"], ["s"], name="scores"),
        node("Constant", [], ["third"], value_float=1 / 3, name="constant"),
        node("Mul", ["s", "third"], ["m"], name="scale"),
        node("Softmax", ["m"], ["soft"], name="softmax"),
        node("Add", ["soft", "third"], ["y"], name="add"),
    ]
    stored = [weights("k", 2, 1, 3, 3), tensor("scales", [1, 1, 2, 2]), tensor("g", [1.1] * 8)]
    stored += [weights("scale", 2), weights("shift", 2), weights("mean", 2), tensor("var", [2, 3])]
    return graph_of(nodes, [value("x", ["n", 1, 4, 4])], [value("y", ["n", 2, 8, 8])], stored)


KEPT = {
    "casts of large numbers": casts_of_large_numbers,
    "identities": identities,
    "one tensor for several": one_tensor_for_several,
    "captured beside one kept": captured_beside_one_kept,
    "layers": layers,
    "initializer for two": lambda: shared_with("Add"),
    "Constant for two": lambda: constant(value_float=1 / 3),
}
EVERY = {**TRAPS, **PLAIN, **KEPT}


def same_bits(model, converted, inputs):
    for wanted, found in zip(run(model, inputs), run(converted, inputs), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("name", EVERY)
def test_with_every_node_kept_the_outputs_are_those_of_float32_bit_for_bit(name):
    model = EVERY[name]()
    converted = convert(model, frozenset(candidates(model)))
    onnx.checker.check_model(converted, full_check=True)
    assert ends(converted) == ends(model)
    for seed in range(3):
        inputs = feeds(model, seed)
        for mixed in (converted, rounded(converted)):
            if name == "RandomNormalLike with dtype":  # other noise in every session
                check_converted(model, mixed)
            else:
                same_bits(model, mixed, inputs)


@pytest.mark.parametrize("name", KEPT)
def test_float16_alone_changes_what_keeping_must_not(name):
    model, inputs = KEPT[name](), feeds(KEPT[name](), 0)
    with pytest.raises(AssertionError):
        same_bits(model, rounded(convert(model)), inputs)


@pytest.mark.parametrize("name", EVERY)
def test_any_set_of_nodes_can_be_kept(name):
    """Every set where there are few, else some; also with true rounding, which leaves Loops out."""
    model = EVERY[name]()
    prepared = prepare(model)
    nodes = candidates(prepared)
    sets = [s for size in range(len(nodes)) for s in combinations(nodes, size)]
    ways = [lambda mixed: mixed] if name == "Loop" else [lambda mixed: mixed, rounded]
    for keep in sets if len(sets) < 30 else random.Random(0).sample(sets, 30):
        mixed = convert(prepared, frozenset(keep))
        for way in ways:
            if name == "casts of large numbers":  # whose Floor may fall on the other side
                onnx.checker.check_model(way(mixed), full_check=True)
                run(way(mixed), feeds(model, 0))
            else:
                check_converted(model, way(mixed))


@pytest.mark.parametrize("name", EVERY)
def test_keeping_nothing_is_the_conversion_and_prepared_or_not_is_the_same(name):
    model = EVERY[name]()
    prepared = prepare(model)
    some = frozenset(candidates(model)[::2])
    for keep in (frozenset(), some):
        first = convert(prepared, keep).SerializeToString(deterministic=True)
        assert convert(prepared, keep).SerializeToString(deterministic=True) == first
        assert convert(model, keep).SerializeToString(deterministic=True) == first


def between(model, first, last):
    """The operators on the way from one node's output to another's first input, Casts included."""
    made = {name: one for one in model.graph.node for name in one.output}
    named = {one.name: one for one in model.graph.node}
    found, at = [], named[last].input[0]
    while made[at].name != first:
        found.append(made[at].op_type)
        at = made[at].input[0]
    return found


def test_no_cast_is_left_between_two_kept_nodes():
    model = idle_cast("inner")
    nodes = ["matmul_a", "matmul_y"]
    assert candidates(model) == nodes
    assert between(convert(model, frozenset(nodes)), *nodes) == []
    assert between(convert(model, frozenset(nodes[:1])), *nodes) == ["Cast"]
    mixed = convert(model, frozenset(nodes))
    assert not [one for one in mixed.graph.node if one.op_type == "Cast"]


def test_a_kept_node_beside_an_input_or_an_output_has_no_cast_there():
    model = unnamed_nodes()
    first, last = "MatMul_b", "Add_y"
    for keep, inputs, outputs in (({first}, 1, 0), ({last}, 0, 1), ({first, last}, 1, 1)):
        mixed = convert(model, frozenset(keep))
        named = {one.name: one for one in mixed.graph.node}
        made = {one.output[0]: one for one in mixed.graph.node}
        assert (named[first].input[0] == "x") == bool(inputs)
        assert (made["y"].op_type != "Cast") == bool(outputs)


def test_weights_of_kept_nodes_stay_float32_and_a_shared_one_is_there_twice():
    stored = stored_in(convert(identities(), frozenset({"second"})))
    exact = stored_in(identities())["w"]
    kinds = {str(values.dtype): values for values in stored.values()}
    assert len(stored) == 2
    np.testing.assert_array_equal(kinds["float32"], exact)
    np.testing.assert_array_equal(kinds["float16"], exact.astype(np.float16))
    stored = stored_in(convert(identities(), frozenset({"first", "second"})))
    assert [str(values.dtype) for values in stored.values()] == ["float32"]


def test_only_the_kept_node_is_float32():
    model = shared_with("Add")
    found = shares(convert(model, frozenset({"blocked"})))
    assert (found["nodes"], found["nodes_float32"]) == (3, 1)
    assert found["node_share_float16"] == 2 / 3


@pytest.mark.parametrize("build", [
    lambda: with_values([70000.0]),
    lambda: graph_of([matmul(), node("Constant", [], ["k"], value_float=-1e6, name="constant"),
                      node("Add", ["a", "k"], ["y"], name="add")]),
    lambda: graph_of([matmul(), node("Identity", ["v"], ["k"], name="same"),
                      node("Add", ["a", "k"], ["y"], name="add")], stored=[tensor("v", [1e6])]),
    lambda: graph_of([matmul(), node("Shape", ["a"], ["s"], name="shape"),
                      node("ConstantOfShape", ["s"], ["k"], value=tensor("", [1e6]), name="add"),
                      node("Identity", ["k"], ["y"], name="same")]),
    lambda: if_graph(branch([node("Add", ["a", "u"], ["p"], name="add")], "p",
                            [tensor("u", [70000.0] * 4)]), times_t()),
    lambda: if_graph(branch([node("Add", ["a", "big"], ["p"], name="add")], "p"), times_t(),
                     [node("Constant", [], ["big"], value_float=70000.0, name="outside")]),
])  # fmt: skip
def test_a_large_value_that_only_a_kept_node_uses_is_not_refused(build):
    model = build()
    with pytest.raises(ValueError, match="float16 cannot hold"):
        convert(model)
    with pytest.raises(ValueError, match="float16 cannot hold"):
        convert(model, frozenset({"matmul_a"}))
    mixed = convert(model, frozenset({"add"}))
    onnx.checker.check_model(mixed, full_check=True)
    inputs = feeds(model, 0)
    everything = convert(model, frozenset(candidates(model)))
    same_bits(model, everything, inputs)
    assert len(run(mixed, inputs)) == 1


def test_a_large_value_that_another_node_uses_too_is_refused():
    nodes = [matmul(), node("Add", ["a", "v"], ["b"], name="add"),
             node("Mul", ["b", "v"], ["y"], name="mul")]  # fmt: skip
    model = graph_of(nodes, stored=[tensor("v", [70000.0])])
    with pytest.raises(ValueError, match="70000"):
        convert(model, frozenset({"add"}))
    convert(model, frozenset({"add", "mul"}))


def test_candidates_are_named_in_graph_order_with_what_a_branch_holds():
    # a Max stays float32 anyway; Constant, Shape and Cast do not compute
    assert candidates(blocked_inside_a_branch()) == ["matmul_a", "if", "q", "relu", "add", "after"]
    assert candidates(unnamed_nodes()) == ["Relu_a", "MatMul_b", "Add_y"]
    assert candidates(shape_arithmetic()) == [
        "mul", "floor", "expand", "sum", "matmul_a", "times"]  # fmt: skip
    assert candidates(if_with_a_cast()) == ["matmul_a", "if", "q", "reduce", "p", "after"]


def test_a_node_whose_result_has_no_known_type_is_no_candidate():
    model = graph_of([matmul(), node("Relu", ["a"], ["y"], name="relu")])
    strange = node("Strange", ["a"], ["b"], name="strange", domain="example")
    model.graph.node.insert(1, strange)
    model.graph.node[2].input[0] = "b"
    model.opset_import.append(helper.make_opsetid("example", 1))
    assert candidates(model) == ["matmul_a", "relu"]


@pytest.mark.parametrize("name", ["nothing", "w", "cast"])
def test_a_name_that_cannot_be_kept_is_refused(name):
    with pytest.raises(ValueError, match=f"no node '{name}' that could be kept"):
        convert(cast_from(INT64), frozenset({"matmul_a", name}))


def test_a_node_that_stays_float32_anyway_may_be_named():
    model = two_blocked_in_a_row()
    assert "max" not in candidates(model)
    check_converted(model, convert(model, frozenset({"max"})))


def test_a_kept_if_keeps_all_that_is_inside():
    model = if_in_if()
    mixed = convert(model, frozenset({"if"}))
    named = {one.name: graph for graph in graphs(mixed.graph) for one in graph.node}
    for name in ("p1", "p2"):
        assert [one.type.tensor_type.elem_type for one in named[name].output] == [FLOAT]
    assert shares(mixed)["nodes_float32"] == 5  # if, inner, p1, p2, q; of 7


def test_what_has_nothing_to_do_with_a_kept_node_stays_as_it_is():
    """The Max beside it, float32 anyway, is still rounded on its way in and out."""
    nodes = [matmul("x", "z"), node("Max", ["x", "t"], ["y"], name="max")]
    model = graph_of(nodes, outputs=[value("y"), value("z")], stored=[weights("t", 4)])
    inputs = feeds(model, 0)
    exact, pure, mixed = (
        run(one, inputs)
        for one in (
            model,
            rounded(convert(model)),
            rounded(convert(model, frozenset({"matmul_z"}))),
        )
    )
    assert not np.array_equal(exact[0], pure[0])
    np.testing.assert_array_equal(mixed[0], pure[0])
    np.testing.assert_array_equal(mixed[1], exact[1])


def test_a_way_through_float16_in_the_model_itself_does_not_break_a_kept_node():
    nodes = [
        matmul(),
        node("Cast", ["a"], ["h"], to=HALF, name="down"),
        node("Cast", ["h"], ["f"], to=FLOAT, name="up"),
        matmul("f", "y"),
    ]
    model = graph_of(nodes)
    for keep in ((), ("matmul_a",), ("matmul_y",), ("matmul_a", "matmul_y")):
        check_converted(model, convert(model, frozenset(keep)))


def test_true_rounding_sees_what_is_kept():
    """1 + 2**-12 - 1: float16 loses it between the two nodes, unless both are kept."""
    nodes = [node("Add", ["x", "one"], ["a"], name="add"),
             node("Sub", ["a", "one"], ["y"], name="subtract")]  # fmt: skip
    model = graph_of(nodes, stored=[tensor("one", [1.0])])
    inputs = {"x": np.full((1, 4), 2.0**-12, np.float32)}
    for keep, wanted in (
        ((), 0),
        (("add",), 0),
        (("subtract",), 0),
        (("add", "subtract"), 2.0**-12),
    ):
        assert (run(rounded(convert(model, frozenset(keep))), inputs)[0] == wanted).all()


# ---- the proof ----------------------------------------------------------------------------------


def half_and_float():
    """Two nodes that compute, one in float16; 16 weights of 2 bytes, 4 of 4 bytes."""
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF, name="down"),
        node("MatMul", ["h", "w16"], ["a"], name="matmul"),
        node("Cast", ["a"], ["f"], to=FLOAT, name="up"),
        node("Add", ["f", "t"], ["y"], name="add"),
    ]
    return graph_of(nodes, stored=[tensor("w16", np.ones((4, 4)), np.float16), weights("t", 4)])


NEITHER = {"node_share_bfloat16": 0.0, "node_share_int8": 0.0,
           "weight_share_bfloat16": 0.0, "weight_share_int8": 0.0}  # fmt: skip


def test_shares_of_a_graph_counted_by_hand():
    found = shares(half_and_float())
    assert found == NEITHER | {
        "nodes": 2,
        "node_share_float16": 0.5,
        "nodes_float32": 1,
        "weight_bytes": 16 * 2 + 4 * 4,
        "weight_share_float16": 32 / 48,
        "weight_bytes_float32": 4 * 4,
    }


def half_and_float_in_bfloat16():
    """The same graph with bfloat16 where it has float16."""
    model = half_and_float()
    stored = model.graph.initializer[0]
    assert stored.data_type == HALF
    short = helper.make_tensor("w16", TensorProto.BFLOAT16, [4, 4], [1.0] * 16)
    stored.CopyFrom(short)
    model.graph.node[0].attribute[0].i = TensorProto.BFLOAT16
    onnx.checker.check_model(model, full_check=True)
    return model


def test_shares_of_bfloat16_counted_by_hand():
    found = shares(half_and_float_in_bfloat16())
    assert found["nodes"] == 2
    assert found["nodes_float32"] == 1
    assert found["node_share_bfloat16"] == 0.5
    assert found["node_share_float16"] == 0
    assert found["weight_bytes"] == 16 * 2 + 4 * 4
    assert found["weight_share_bfloat16"] == 32 / 48
    assert found["weight_share_float16"] == 0
    assert found["weight_bytes_float32"] == 16


def test_the_proof_of_bfloat16(tmp_path):
    result, out = prove(tmp_path, "onnx_bf16", half_and_float_in_bfloat16())
    assert result.output == "onnx_bf16: 50% of the nodes and 67% of the weight bytes are bfloat16\n"
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics["precision"] == "bfloat16"
    assert metrics["share"] == metrics["weight_share_bfloat16"] == 32 / 48
    assert metrics["share_float16"] == 0
    for variant, wrong, words in (
        ("onnx_bf16", half_and_float(), "none of its weights are bfloat16"),
        ("onnx_fp16", half_and_float_in_bfloat16(), "none of its weights are float16"),
        ("onnx_fp32", half_and_float_in_bfloat16(), "and holds bfloat16 weights"),
    ):
        result, _ = prove(tmp_path, variant, wrong)
        assert result.exit_code == 1
        assert words in result.output


def test_shares_of_a_float32_graph_and_of_its_conversion():
    model = shared_with("Max")
    assert shares(model) == NEITHER | {
        "nodes": 3,
        "node_share_float16": 0.0,
        "nodes_float32": 3,
        "weight_bytes": (16 + 4) * 4,
        "weight_share_float16": 0.0,
        "weight_bytes_float32": (16 + 4) * 4,
    }
    # after it: w and t in float16, a second t in float32 for the Max, which stays float32
    assert shares(convert(model)) == NEITHER | {
        "nodes": 3,
        "node_share_float16": 2 / 3,
        "nodes_float32": 1,
        "weight_bytes": (16 + 4) * 2 + 4 * 4,
        "weight_share_float16": 40 / 56,
        "weight_bytes_float32": 4 * 4,
    }


def test_shares_count_branches_and_constant_tensors():
    found = shares(if_with_its_own_values())
    # MatMul, Abs, If, Relu, and in the branches Add and Mul; the Constant does not compute
    assert found["nodes"] == 6
    assert found["weight_bytes"] == (16 + 4 + 4) * 4
    assert shares(constant(value=weights("", 4)))["weight_bytes"] == (16 + 4) * 4


def test_integers_are_no_weights():
    model = graph_of(
        [node("Gather", ["x", "i"], ["y"], axis=1, name="gather")],
        outputs=[value("y", ["n", 2])],
        stored=[tensor("i", [0, 1], np.int64)],
    )
    assert shares(model)["weight_bytes"] == 0
    assert shares(model)["weight_share_float16"] == 0.0


def prove(folder, variant, model):
    path = folder / "model.onnx"
    onnx.save(model, path)
    out = folder / f"{variant}.precision.json"
    arguments = ["--variant", variant, "--model", str(path), "--out", str(out)]
    return CliRunner().invoke(prove_precision.main, arguments), out


def test_the_proof_of_a_conversion(tmp_path):
    model = with_values([1e-9, 1.0, 1.0, 1.0])
    result, out = prove(tmp_path, "onnx_fp16", convert(model))
    assert result.exit_code == 0, result.output
    assert result.output == (
        "onnx_fp16: 100% of the nodes and 100% of the weight bytes are float16\n"
    )
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics["values_below_float16"] == 1
    assert metrics["precision"] == "float16"
    assert metrics["share"] == metrics["share_float16"] == 1
    assert metrics["weight_bytes"] == metrics["counted"] == 20 * 2
    assert metrics["file_bytes"] == (tmp_path / "model.onnx").stat().st_size


def test_a_float32_file_is_not_called_fp16(tmp_path):
    result, out = prove(tmp_path, "onnx_fp16", output_used_inside())
    assert result.exit_code == 1
    assert "is called onnx_fp16, and none of its weights are float16" in result.output
    assert not out.exists()


@pytest.mark.parametrize("build", [half_and_float, lambda: convert(shared_with("Max"))])
def test_a_file_with_float16_weights_is_not_called_fp32(tmp_path, build):
    result, out = prove(tmp_path, "onnx_fp32", build())
    assert result.exit_code == 1
    assert "is called onnx_fp32, and holds float16 weights" in result.output
    assert not out.exists()


def test_a_file_without_weights_proves_nothing(tmp_path):
    model = graph_of([node("Relu", ["x"], ["y"], name="relu")])
    result, _ = prove(tmp_path, "onnx_fp32", model)
    assert result.exit_code == 1
    assert "nothing to prove" in result.output


# ---- the command --------------------------------------------------------------------------------

CASE = """
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 4
[[inputs]]
name = "x"
shape = [4]
dtype = "float32"
file = "inputs.npy"
[labels]
file = "labels.npy"
"""


@pytest.fixture
def case(tmp_path, monkeypatch):
    """The folder of a case with six samples, and the command that converts a model for it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/toy")
    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(CASE, encoding="utf-8")
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.save(folder / "inputs.npy", rows)
    np.save(folder / "labels.npy", np.array([0, 1] * 3, np.uint8))
    samples = {
        "labels": str(folder / "labels.npy"),
        "arrays": {"x": str(folder / "inputs.npy")},
    }
    Path("samples.json").write_text(json.dumps(samples), encoding="utf-8")

    def command(model):
        onnx.save(model, "fp32.onnx")
        arguments = [str(folder / "case.toml"), "--samples", "samples.json"]
        arguments += ["--model", "fp32.onnx", "--out", "out/model.onnx"]
        return CliRunner().invoke(convert_fp16.main, arguments)

    return command


def one_number(*before, **more):
    nodes = [*before, node("MatMul", ["x" if not before else "a", "column"], ["y"], name="last")]
    stored = [weights("column", 4, 1), *more.pop("stored", [])]
    return graph_of(nodes, outputs=[value("y", ["n", 1])], stored=stored)


def test_the_command_writes_a_model_that_ran(case):
    result = case(one_number())
    assert result.exit_code == 0, result.output
    assert result.output.startswith("onnx_fp16: 3 nodes, ")
    assert result.output.endswith("runs at batch 1, 3, 4\n")
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.onnx"]
    assert shares(onnx.load("out/model.onnx"))["weight_share_float16"] == 1


def test_the_command_names_the_value_and_how_to_go_on(case):
    too_large = tensor("bias", [70000.0])
    result = case(one_number(node("Add", ["x", "bias"], ["a"], name="add"), stored=[too_large]))
    assert result.exit_code == 1
    assert "float16 cannot hold 70000, a value of 'bias'" in result.output
    assert 'skip = ["onnx_fp16"]' in result.output
    assert "Traceback" not in result.output
    assert not Path("out/model.onnx").exists()


def test_a_refused_conversion_leaves_the_earlier_model(case):
    assert case(one_number()).exit_code == 0
    before = Path("out/model.onnx").read_bytes()
    too_large = tensor("bias", [-1e6])
    bad = one_number(node("Add", ["x", "bias"], ["a"], name="add"), stored=[too_large])
    assert case(bad).exit_code == 1
    assert Path("out/model.onnx").read_bytes() == before
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.onnx"]


def test_a_model_that_holds_float16_weights_is_refused(case):
    half = one_number(
        node("Cast", ["x"], ["h"], to=HALF, name="down"),
        node("Add", ["h", "half_w"], ["s"], name="add"),
        node("Cast", ["s"], ["a"], to=FLOAT, name="up"),
        stored=[numpy_helper.from_array(np.ones(1, np.float16), "half_w")],
    )
    result = case(half)
    assert result.exit_code == 1
    assert "it holds float16 already" in result.output
    assert 'skip = ["onnx_fp16"]' in result.output


def test_a_crash_of_onnx_runtime_is_told_in_a_sentence(tmp_path):
    """ONNX Runtime 1.27.0 ends with SIGSEGV while it optimises this encoder in float16."""
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(100, 32)
            self.encoder = torch.nn.TransformerEncoder(layer, 2)
            self.last = torch.nn.Linear(32, 1)

        def forward(self, words):
            hidden = self.encoder(self.words(words), src_key_padding_mask=words == 0)
            return self.last(hidden.mean(1))

    with quiet():
        program = torch.onnx.export(
            Encoder().eval(),
            (torch.ones(3, 12, dtype=torch.int64),),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    path = tmp_path / "aside.onnx"
    onnx.save_model(convert(program.model_proto), path)
    with pytest.raises(click.ClickException, match=r"crashes \(SIGSEGV\).*model_fp16.onnx"):
        load_elsewhere(path, Path("model_fp16.onnx"))


def test_weights_in_a_second_file_are_refused(case):
    Path("fp32.onnx.data").write_bytes(b"")
    result = case(one_number())
    assert result.exit_code == 1
    assert "keeps its weights in a second file" in result.output
    assert 'skip = ["onnx_fp16"]' in result.output
