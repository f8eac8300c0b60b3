"""int8: what is quantised, how, and what stays as it was; each hard graph runs in ONNX Runtime."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from scripts.backends.onnxruntime import convert_int8 as quantize_int8
from scripts.backends.onnxruntime import prove as prove_precision
from scripts.backends.tensorrt.form import for_tensorrt
from scripts.data.parts import calibration_rows
from scripts.graphs import int8_flow
from scripts.graphs.int8_calibration import calibrate, weight_limit
from scripts.graphs.int8_flow import candidates
from scripts.graphs.int8_graph import Ranges, note, quantize
from scripts.graphs.session import open_session
from scripts.graphs.shares import shares

onnxruntime.set_default_logger_severity(4)
node = helper.make_node
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
IMAGE = ["n", 4, 8, 8]
Q, DQ = "QuantizeLinear", "DequantizeLinear"


def tensor(name, values, kind=np.float32):
    return numpy_helper.from_array(np.array(values, kind), name)


def weights(name, *shape, scale=0.3):
    seed = sum(map(ord, name))
    return tensor(name, scale * np.random.default_rng(seed).normal(size=shape))


def value(name, shape=("n", 8), kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, list(shape))


def graph_of(nodes, stored, inputs=None, outputs=None):
    """A checked model: image x in and y out unless told otherwise."""
    inputs, outputs = inputs or [value("x", IMAGE)], outputs or [value("y", IMAGE)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv(name, source, out, group=1, bias=True):
    inputs = [source, f"{name}.w", *([f"{name}.b"] if bias else [])]
    return node("Conv", inputs, [out], pads=[1] * 4, group=group, name=name)


def parts(*names, group=1):
    """The stored weights and biases of convolutions from 4 channels to 4."""
    made = [weights(f"{name}.w", 4, 4 // group, 3, 3) for name in names]
    return made + [weights(f"{name}.b", 4) for name in names]


def chain():
    """Three convolutions with ReLU, a pool, and a Gemm whose output is the graph's."""
    nodes = [
        conv("conv1", "x", "c1"),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        conv("conv2", "r1", "c2"),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        conv("conv3", "p2", "c3"),
        node("Relu", ["c3"], ["r3"], name="relu3"),
        node("Flatten", ["r3"], ["f"], name="flatten"),
        node("Gemm", ["f", "head.w", "head.b"], ["y"], transB=1, name="head"),
    ]
    stored = [*parts("conv1", "conv2", "conv3"), weights("head.w", 1, 64), weights("head.b", 1)]
    return graph_of(nodes, stored, outputs=[value("y", ["n", 1])])


def residual():
    nodes = [
        conv("conv1", "x", "c1"),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        conv("conv2", "r1", "c2"),
        node("Add", ["c2", "r1"], ["s"], name="add"),
        node("Relu", ["s"], ["r2"], name="relu2"),
        conv("conv3", "r2", "c3"),
        node("Relu", ["c3"], ["y"], name="relu3"),
    ]
    return graph_of(nodes, parts("conv1", "conv2", "conv3"))


def branches():
    """A Conv, then an If whose branches hold a MatMul each, then a Conv."""

    def branch(out, factor):
        nodes = [node("MatMul", ["c1", factor], [out], name=f"product_{out}")]
        return helper.make_graph(nodes, f"branch_{out}", [], [value(out, IMAGE)])

    choice = node("If", ["choice"], ["b"], name="if", then_branch=branch("t", "m"),
                  else_branch=branch("e", "k"))  # fmt: skip
    stored = [*parts("conv1", "conv2"), weights("m", 8, 8), weights("k", 8, 8)]
    nodes = [conv("conv1", "x", "c1"), choice, conv("conv2", "b", "y")]
    return graph_of(nodes, stored, [value("x", IMAGE), value("choice", [], BOOL)])


def shared_weights():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("MatMul", ["r", "w"], ["b"], name="second"),
        node("Sigmoid", ["b"], ["y"], name="sigmoid"),
    ]
    return graph_of(nodes, [weights("w", 8, 8)], [value("x")], [value("y")])


def shared_bias():
    """Two convolutions with one bias: its steps differ from one to the other."""
    nodes = [
        node("Conv", ["x", "conv1.w", "b"], ["c1"], pads=[1] * 4, name="conv1"),
        node("Relu", ["c1"], ["r1"], name="relu"),
        node("Conv", ["r1", "conv2.w", "b"], ["y"], pads=[1] * 4, name="conv2"),
    ]
    stored = [weights("conv1.w", 4, 4, 3, 3), weights("conv2.w", 4, 4, 3, 3), weights("b", 4)]
    return graph_of(nodes, stored)


def batch_norm():
    names = ["scale", "shift", "mean"]
    nodes = [
        conv("conv1", "x", "c1"),
        node("BatchNormalization", ["c1", *names, "var"], ["n1"], name="norm"),
        node("Relu", ["n1"], ["r1"], name="relu"),
        conv("conv2", "r1", "y"),
    ]
    stored = [weights(name, 4) for name in names] + [tensor("var", [1, 2, 3, 4])]
    return graph_of(nodes, [*parts("conv1", "conv2"), *stored])


def resize():
    nodes = [
        conv("conv1", "x", "c1"),
        node("Resize", ["c1", "", "scales"], ["b"], mode="linear", name="resize"),
        conv("conv2", "b", "y"),
    ]
    stored = [*parts("conv1", "conv2"), tensor("scales", [1, 1, 2, 2])]
    return graph_of(nodes, stored, outputs=[value("y", ["n", 4, 16, 16])])


def attention():
    """LayerNormalization, products of two activations, a Softmax, weights of two and three axes."""
    nodes = [
        node("LayerNormalization", ["x", "g", "s"], ["l"], axis=-1, name="norm"),
        node("MatMul", ["l", "wq"], ["q"], name="queries"),
        node("MatMul", ["l", "wk"], ["k"], name="keys"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1], name="transpose"),
        node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["p"], axis=-1, name="softmax"),
        node("MatMul", ["p", "l"], ["o"], name="mix"),
        node("Add", ["o", "x"], ["sum"], name="residual"),
        node("MatMul", ["sum", "w3"], ["m"], name="stacked"),
        node("Add", ["m", "b"], ["y"], name="shift"),
    ]
    stored = [weights("g", 8, scale=1), weights("s", 8), weights("wq", 8, 8), weights("wk", 8, 8),
              weights("w3", 1, 8, 8), weights("b", 8)]  # fmt: skip
    shape = ["n", 5, 8]
    return graph_of(nodes, stored, [value("x", shape)], [value("y", shape)])


def gemms():
    """A Gemm of each orientation; a bias of two axes and a factor, which stay float32."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["a"], name="plain"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Gemm", ["r", "w2", "b2"], ["b"], transB=1, name="turned"),
        node("Gemm", ["b", "w3", "b3"], ["c"], name="wide"),
        node("Gemm", ["c", "w4", "b4"], ["y"], alpha=0.5, beta=2.0, name="scaled"),
    ]
    shapes = {"w1": (8, 6), "b1": (6,), "w2": (5, 6), "b2": (5,), "w3": (5, 8), "b3": (1, 8),
              "w4": (8, 8), "b4": (8,)}  # fmt: skip
    stored = [weights(name, *shape) for name, shape in shapes.items()]
    return graph_of(nodes, stored, [value("x")], [value("y")])


def groups():
    nodes = [conv("conv1", "x", "c1", group=4), node("Relu", ["c1"], ["r1"], name="relu"),
             conv("conv2", "r1", "y", group=2)]  # fmt: skip
    return graph_of(nodes, parts("conv1", group=4) + parts("conv2", group=2))


def joined():
    """Two branches that a Concat joins, as in SqueezeNet."""
    nodes = [
        conv("conv0", "x", "c0"),
        node("Relu", ["c0"], ["r0"], name="relu0"),
        conv("conv1", "r0", "c1"),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        conv("conv2", "r0", "c2"),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("Concat", ["r1", "r2"], ["j"], axis=1, name="concat"),
        node("Conv", ["j", "last"], ["y"], name="conv3"),
    ]
    return graph_of(nodes, [*parts("conv0", "conv1", "conv2"), weights("last", 4, 8, 1, 1)])


def embedding():
    nodes = [
        node("Gather", ["table", "words"], ["e"], name="gather"),
        node("Cast", ["mask"], ["f"], to=FLOAT, name="cast"),
        node("Mul", ["e", "f"], ["m"], name="mul"),
        node("MatMul", ["m", "w"], ["y"], name="matmul"),
    ]
    inputs = [value("words", ["n", 5], INT64), value("mask", ["n", 5, 1], BOOL)]
    stored = [weights("table", 10, 8), weights("w", 8, 8)]
    return graph_of(nodes, stored, inputs, [value("y", ["n", 5, 8])])


def fully_convolutional():
    """A head that is a Conv, with a pool, a ReLU and a Flatten between it and the output."""
    nodes = [
        conv("conv1", "x", "c1"),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        conv("conv2", "r1", "c2"),
        node("Relu", ["c2"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        node("Flatten", ["g"], ["y"], name="flatten"),
    ]
    return graph_of(nodes, parts("conv1", "conv2"), outputs=[value("y", ["n", 4])])


def unnamed():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    return graph_of(nodes, [weights("w", 8, 8), weights("v", 8, 8)], [value("x")], [value("y")])


HARD = {
    "chain": (chain, ["conv1", "conv2", "conv3", "head"]),
    "residual Add": (residual, ["conv1", "conv2", "add", "conv3"]),
    "If": (branches, ["conv1", "conv2"]),
    "shared weights": (shared_weights, ["first", "second"]),
    "shared bias": (shared_bias, ["conv1", "conv2"]),
    "BatchNormalization": (batch_norm, ["conv1", "conv2"]),
    "Resize": (resize, ["conv1", "conv2"]),
    "attention": (attention, ["queries", "keys", "scores", "mix", "stacked"]),
    "Gemm": (gemms, ["plain", "turned", "wide", "scaled"]),
    "Conv with groups": (groups, ["conv1", "conv2"]),
    "Concat": (joined, ["conv0", "conv1", "conv2", "conv3"]),
    "integer and bool inputs": (embedding, ["matmul"]),
    "a Conv as the head": (fully_convolutional, ["conv1", "conv2"]),
    "unnamed nodes": (unnamed, ["MatMul_a", "MatMul_y"]),
}
hard = pytest.mark.parametrize(("build", "nodes"), HARD.values(), ids=HARD.keys())


def feeds(model, seed, rows=8):
    random = np.random.default_rng(seed)
    made = {}
    for one in model.graph.input:
        shape = [axis.dim_value or rows for axis in one.type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type)
        drawn = random.normal(size=shape) if kind.kind == "f" else random.integers(0, 2, shape)
        made[one.name] = np.asarray(drawn, kind)
    return made


def batches(model):
    return [feeds(model, seed) for seed in range(4)]


def run(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def calibrated(model):
    """Ranges as on a processor with VNNI, on every machine that runs the tests."""
    ranges = calibrate(model, batches(model))
    return replace(ranges, weight_limit=127)


def stored_in(model):
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def by_type(model, *types):
    return [one for one in model.graph.node if one.op_type in types]


def rounded(model):
    """The tensors that a QuantizeLinear rounds, and the stored ones that are whole numbers."""
    stored = stored_in(model)
    whole = {one.input[0] for one in by_type(model, DQ) if one.input[0] in stored}
    return {one.input[0] for one in by_type(model, Q)} | whole


def ends(model):
    return [
        (one.name, one.type.tensor_type.elem_type)
        for one in (*model.graph.input, *model.graph.output)
    ]


def far(found, wanted):
    """The largest error, as a share of the largest value."""
    return np.abs(found - wanted).max() / np.abs(wanted).max()


# ---- every hard graph ----------------------------------------------------------------------------


@hard
def test_the_candidates_are_those_that_int8_computes(build, nodes):
    assert candidates(build()) == nodes


@hard
def test_it_runs_and_stays_near_float32(build, nodes):
    model = build()
    ranges = calibrated(model)
    converted = quantize(model, ranges)
    onnx.checker.check_model(converted, full_check=True)
    assert ends(converted) == ends(model)
    for inputs in batches(model):
        wanted, found = run(model, inputs), run(converted, inputs)
        assert found.dtype == np.float32
        assert 0 < far(found, wanted) < 0.1  # not float32, and near it


@hard
def test_every_candidate_computes_in_int8(build, nodes):
    converted = quantize(build(), calibrated(build()))
    made = {name: one.op_type for one in converted.graph.node for name in one.output}
    for one in converted.graph.node:
        if one.name in nodes:
            assert {made.get(name) for name in one.input[:2]} == {DQ}
    found = shares(converted)
    assert found["nodes"] - found["nodes_float32"] >= len(nodes)


@hard
def test_all_kept_gives_float32_s_bits(build, nodes):
    model = build()
    kept = quantize(model, calibrated(model), frozenset(nodes))
    assert not by_type(kept, Q, DQ)
    for inputs in batches(model):
        np.testing.assert_array_equal(run(kept, inputs), run(model, inputs))


@hard
def test_each_node_kept_alone_is_as_it_was_on_unrounded_inputs(build, nodes):
    model = build()
    ranges = calibrated(model)
    named = {one.name: one for one in int8_flow.named(model).graph.node}
    for name in nodes:
        kept = quantize(model, ranges, frozenset([name]))
        onnx.checker.check_model(kept, full_check=True)
        found = next(one for one in kept.graph.node if one.name == name)
        assert found == named[name]
        stored, before = stored_in(kept), stored_in(model)
        for one in [one for one in found.input if one in before]:
            np.testing.assert_array_equal(stored[one], before[one])
        assert far(run(kept, feeds(model, 0)), run(model, feeds(model, 0))) < 0.1


@hard
def test_the_same_bytes_every_time_and_the_model_given_unchanged(build, nodes):
    model = build()
    before = model.SerializeToString()
    keep = frozenset(nodes[:1])
    first = quantize(model, calibrated(model), keep).SerializeToString(deterministic=True)
    second = quantize(model, calibrated(model), keep).SerializeToString(deterministic=True)
    assert first == second
    assert quantize(model, calibrated(model)).SerializeToString(deterministic=True) != first
    assert model.SerializeToString() == before


@hard
def test_activations_are_symmetric_and_weights_are_signed(build, nodes):
    converted = quantize(build(), calibrated(build()))
    stored = stored_in(converted)
    assert by_type(converted, Q)
    for one in by_type(converted, Q, DQ):
        zero = stored[one.input[2]]
        activation = one.input[0] not in stored
        assert zero.dtype in ((np.uint8,) if activation else (np.int8, np.int32))
        assert (zero == (128 if activation else 0)).all()
        assert (stored[one.input[1]] > 0).all()  # TensorRT wants that, too
        assert zero.shape == stored[one.input[1]].shape


@hard
def test_tensorrt_gets_the_same_values_with_zero_points_of_0(build, nodes):
    model = build()
    converted = quantize(model, calibrated(model))
    before = converted.SerializeToString()
    folded = for_tensorrt(converted)
    assert converted.SerializeToString() == before
    onnx.checker.check_model(folded, full_check=True)
    stored = stored_in(folded)
    for one in by_type(folded, Q, DQ):
        assert stored[one.input[2]].dtype == np.int8
        assert not stored[one.input[2]].any()
        assert one.input[0] not in stored or stored[one.input[0]].dtype == np.int8
    inputs = feeds(model, 0)
    np.testing.assert_array_equal(plainly(folded, inputs), plainly(converted, inputs))


def plainly(model, inputs):
    """The output without any optimisation: each QuantizeLinear and DequantizeLinear as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


# ---- one promise each ----------------------------------------------------------------------------


def test_the_steps_by_hand():
    """x @ w + b with powers of two: every step, whole number and product is exact."""
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], name="gemm")]
    stored = [tensor("w", [[127, -254], [1, 2]]), tensor("b", [0.5, -3])]
    model = graph_of(nodes, stored, [value("x", ["n", 2])], [value("y", ["n", 2])])
    x = np.array([[63.5, -1], [0.5, 0.3]], np.float32)
    converted = quantize(model, replace(calibrate(model, [{"x": x}]), weight_limit=127))
    found = stored_in(converted)
    assert found["x_scale"] == np.float32(0.5)
    assert found["w_scale"].tolist() == [1, 2]
    assert found["w_quantized"].tolist() == [[127, -127], [1, 1]]
    assert found["b_scale"].tolist() == [0.5, 1]
    assert found["b_quantized"].tolist() == [1, -3]
    # 0.3 becomes 0.5; all else is exact
    wanted = np.array([[63.5, -1], [0.5, 0.5]]) @ [[127, -254], [1, 2]] + [0.5, -3]
    np.testing.assert_array_equal(run(converted, {"x": x}), wanted.astype(np.float32))


def test_weights_have_a_scale_for_each_output_channel():
    found = stored_in(quantize(gemms(), calibrated(gemms())))
    shapes = {name: found[f"{name}_scale"].shape for name in ("w1", "w2", "w3", "w4")}
    assert shapes == {"w1": (6,), "w2": (5,), "w3": (8,), "w4": (8,)}
    before = stored_in(gemms())
    np.testing.assert_allclose(found["w1_scale"], np.abs(before["w1"]).max(0) / 127, rtol=1e-6)
    np.testing.assert_allclose(found["w2_scale"], np.abs(before["w2"]).max(1) / 127, rtol=1e-6)
    axes = {one.name: one.attribute[0].i for one in by_type(quantize(gemms(), calibrated(gemms())), DQ)
            if one.attribute}  # fmt: skip
    assert axes["w1_DequantizeLinear"] == 1
    assert axes["w2_DequantizeLinear"] == 0
    grouped = stored_in(quantize(groups(), calibrated(groups())))
    assert grouped["conv1.w_scale"].shape == (4,)
    assert stored_in(quantize(attention(), calibrated(attention())))["w3_scale"].shape == ()


def test_a_bias_that_is_not_one_value_for_each_channel_stays_float32():
    found = stored_in(quantize(gemms(), calibrated(gemms())))
    assert found["b1_quantized"].dtype == np.int32
    assert found["b3"].dtype == np.float32
    assert found["b4"].dtype == np.float32
    assert "b3_quantized" not in found


def test_shared_weights_are_stored_once_and_kept_for_a_kept_node():
    model = shared_weights()
    ranges = calibrated(model)
    whole = [name for name, one in stored_in(quantize(model, ranges)).items() if one.ndim == 2]
    assert whole == ["w_quantized"]
    half = stored_in(quantize(model, ranges, frozenset(["second"])))
    assert half["w_quantized"].dtype == np.int8
    assert half["w"].dtype == np.float32


def test_keeping_one_node_changes_what_is_around_it_and_nothing_else():
    model = chain()
    ranges = calibrated(model)
    before = rounded(quantize(model, ranges))
    after = rounded(quantize(model, ranges, frozenset(["conv2"])))
    # its input with the way there from conv1, what it gives on the way to conv3, what it stores
    around = {"c1", "r1", "c2", "r2", "conv2.w_quantized", "conv2.b_quantized"}
    assert before - after == around
    assert after < before
    assert {"x", "p2", "c3", "r3", "f", "conv1.w_quantized", "conv3.w_quantized"} < after


def test_nothing_is_rounded_after_the_last_node():
    for build, last in (
        (chain, {"y"}),
        (attention, {"m", "y"}),
        (residual, {"c3", "y"}),
        (fully_convolutional, {"c2", "r2", "g", "y"}),
    ):
        found = rounded(quantize(build(), calibrated(build())))
        assert not last & found
        assert len([name for name in found if not name.endswith("_quantized")]) >= 3
    every = quantize(fully_convolutional(), calibrated(fully_convolutional()))
    assert "c1" in rounded(every)


def test_branches_of_an_if_stay_float32_and_get_unrounded_values():
    model = branches()
    converted = quantize(model, calibrated(model))
    assert by_type(converted, "If") == by_type(model, "If")
    assert len(by_type(model, "If")) == 1
    assert "c1" not in rounded(converted)
    assert "b" in rounded(converted)


def test_an_add_of_anything_but_two_convolutions_stays_float32():
    nodes = [
        conv("conv1", "x", "c1"),
        node("Add", ["c1", "x"], ["a"], name="with_the_input"),
        node("Sigmoid", ["c1"], ["s"], name="sigmoid"),
        node("Add", ["c1", "s"], ["b"], name="with_a_sigmoid"),
        node("Add", ["b", "v"], ["d"], name="with_a_constant"),
        node("Sum", ["a", "d"], ["e"], name="sum"),
        conv("conv2", "e", "y"),
    ]
    model = graph_of(nodes, [*parts("conv1", "conv2"), weights("v", 4, 1, 1)])
    assert candidates(model) == ["conv1", "conv2"]
    assert not {"a", "s", "b", "d"} & rounded(quantize(model, calibrated(model)))


def test_a_relu_costs_no_precision_before_it():
    """The Conv's output has the range of what the ReLU leaves of it, not that of the negative part."""
    model = chain()
    ranges = calibrated(model)
    assert (
        ranges.largest["c1"] > ranges.largest["r1"] or ranges.largest["c2"] > ranges.largest["r2"]
    )
    found = stored_in(quantize(model, ranges))
    assert found["c1_scale"] == found["r1_scale"] == np.float32(ranges.largest["r1"] / 127)
    # rounded twice is rounded once: without the QuantizeLinear before the ReLU the same comes out
    converted = quantize(model, ranges)
    bare = onnx.ModelProto()
    bare.CopyFrom(converted)
    for one in bare.graph.node:
        if one.name in ("relu1", "relu2", "relu3"):
            one.input[0] = one.input[0].removesuffix("_DequantizeLinear_Output")
    inputs = feeds(model, 9)
    np.testing.assert_array_equal(plainly(bare, inputs), plainly(converted, inputs))


def optimised(model, folder):
    """How many nodes of each operator ONNX Runtime makes of the model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(one.op_type for one in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (chain, {"QLinearConv": 3, "QGemm": 1}),
        (residual, {"QLinearConv": 2, "QLinearAdd": 1}),  # the last Conv gives the output
        (joined, {"QLinearConv": 3, "QLinearConcat": 1}),
        (attention, {"MatMulIntegerToFloat": 3, "QLinearMatMul": 2}),
        (groups, {"QLinearConv": 1}),
    ],
)
def test_onnx_runtime_computes_it_in_int8(build, wanted, tmp_path):
    found = optimised(quantize(build(), calibrated(build())), tmp_path)
    assert {name: found[name] for name in wanted} == wanted, found
    assert not any(name.startswith("Q") for name in optimised(build(), tmp_path))


def test_an_input_that_is_always_zero():
    model = chain()
    zeros = {"x": np.zeros((2, 4, 8, 8), np.float32)}
    ranges = calibrate(model, [zeros])
    assert ranges.largest["x"] == 0
    converted = quantize(model, ranges)
    onnx.checker.check_model(converted, full_check=True)
    assert stored_in(converted)["x_scale"] == 1
    np.testing.assert_allclose(run(converted, zeros), run(model, zeros), atol=0.05)
    assert np.isfinite(run(converted, feeds(model, 0))).all()


def test_a_channel_of_zeros_keeps_its_bias():
    """Its weights say nothing of its steps, and steps from them could not hold the bias in int32."""
    model = groups()
    for one in model.graph.initializer:
        values = numpy_helper.to_array(one).copy()
        if one.name == "conv1.w":
            values[0], values[1] = 0, 1e-30
        if one.name == "conv1.b":
            values[:2] = 0.123456, -7.25
        one.CopyFrom(numpy_helper.from_array(values, one.name))
    found = stored_in(quantize(model, calibrated(model)))
    bias = found["conv1.b_quantized"] * found["conv1.b_scale"]
    np.testing.assert_allclose(bias[:2], [0.123456, -7.25], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_calibration_sample_that_is_not_finite_is_refused(bad):
    model = chain()
    inputs = batches(model)
    inputs[2]["x"][1, 2, 3, 4] = bad
    with pytest.raises(ValueError, match="a calibration sample of 'x' holds NaN or infinity"):
        calibrate(model, inputs)


def test_a_tensor_that_overflows_in_calibration_is_refused_by_name():
    nodes = [node("Exp", ["x"], ["e"], name="exp"), node("MatMul", ["e", "w"], ["y"], name="m")]
    model = graph_of(nodes, [weights("w", 8, 8)], [value("x")], [value("y")])
    with pytest.raises(ValueError, match="'e', which int8 would hold, is not finite"):
        calibrate(model, [{"x": np.full((2, 8), 1000, np.float32)}])


def test_weights_that_are_not_finite_are_refused_by_name():
    model = chain()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    ranges = calibrated(model)
    values[0] = np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "conv1.w"))
    with pytest.raises(ValueError, match=r"'conv1.w' hold NaN or infinity"):
        quantize(model, ranges)


def test_nothing_to_calibrate_with_is_refused():
    with pytest.raises(ValueError, match="at least 1, and has 0"):
        calibrate(chain(), [])


def test_a_name_that_is_not_quantised_cannot_be_kept():
    with pytest.raises(ValueError, match=r"\['relu1'\] are to be kept"):
        quantize(chain(), calibrated(chain()), frozenset(["relu1"]))


def test_the_ranges_are_those_of_all_batches():
    model = chain()
    every = batches(model)
    largest = max(np.abs(one["x"]).max() for one in every)
    ranges = calibrate(model, iter(every))  # read once
    assert ranges.largest["x"] == largest
    assert ranges.samples == 32
    assert sum(np.abs(one["x"]).max() == largest for one in every) == 1


def test_the_limit_of_the_weights_is_that_of_the_processor(tmp_path):
    file = tmp_path / "cpuinfo"
    for flags, limit in (("sse avx2 avx512f", 64), ("avx2 avx512_vnni", 127), ("avx_vnni", 127)):
        file.write_text(f"processor : 0\nflags : {flags}\n")
        assert weight_limit(file) == limit
    file.write_text("Features : asimd\n")  # ARM, which does not saturate
    assert weight_limit(file) == weight_limit(tmp_path / "none") == 127
    assert 255 * 64 * 2 < 2**15 <= 255 * 65 * 2


def test_weights_keep_to_the_limit():
    ranges = replace(calibrated(chain()), weight_limit=64)
    found = stored_in(quantize(chain(), ranges))
    whole = [one for name, one in found.items() if name.endswith("w_quantized")]
    assert {int(np.abs(one).max()) for one in whole} == {64}
    assert (
        far(run(quantize(chain(), ranges), feeds(chain(), 0)), run(chain(), feeds(chain(), 0)))
        < 0.1
    )


def test_what_calibrated_it_is_written_in_the_file():
    rows = np.array([3, 5, 8])
    first = {one.key: one.value for one in note(chain(), rows).metadata_props}
    assert first["calibration_method"] == "MinMax"
    assert first["calibration_samples"] == "3"
    other = {one.key: one.value for one in note(chain(), np.array([3, 5, 9])).metadata_props}
    assert first["calibration_rows_sha256"] != other["calibration_rows_sha256"]
    assert len(first["calibration_rows_sha256"]) == 64


def test_a_zero_point_of_another_tool_is_refused():
    converted = quantize(chain(), calibrated(chain()))
    zero = next(one for one in converted.graph.initializer if one.name == "x_zero_point")
    zero.CopyFrom(numpy_helper.from_array(np.array(3, np.uint8), "x_zero_point"))
    with pytest.raises(ValueError, match="zero point of 3, not 128"):
        for_tensorrt(converted)


# ---- the proof -----------------------------------------------------------------------------------


def prove(folder, variant, model):
    path = folder / "model.onnx"
    onnx.save(model, path)
    out = folder / f"{variant}.precision.json"
    arguments = ["--variant", variant, "--model", str(path), "--out", str(out)]
    return CliRunner().invoke(prove_precision.main, arguments), out


def test_shares_counted_by_hand():
    """All of residual() in int8, then only conv1, then nothing."""
    model = residual()
    ranges = calibrated(model)
    every = shares(quantize(model, ranges))
    # 3 Conv, 3 ReLU, 1 Add; the last ReLU takes what the last Conv gives, which is not rounded
    assert every["nodes"] == 7
    assert every["node_share_int8"] == 6 / 7
    assert every["nodes_float32"] == 1
    assert every["weight_share_int8"] == 3 * 144 / (3 * (144 + 4))
    assert every["weight_bytes"] == 3 * (144 + 4 * 4)
    assert every["weight_bytes_float32"] == 0
    some = shares(quantize(model, ranges, frozenset(["conv2", "conv3", "add"])))
    assert some["nodes"] == 7
    assert some["node_share_int8"] == 1 / 7
    assert some["nodes_float32"] == 6
    assert some["weight_share_int8"] == 144 / (3 * (144 + 4))
    assert some["weight_bytes"] == 144 + 4 * 4 + 2 * (144 + 4) * 4
    assert some["weight_bytes_float32"] == 2 * (144 + 4) * 4
    none = shares(model)
    assert none["weight_share_int8"] == none["node_share_int8"] == 0
    assert none["nodes_float32"] == 7


def test_the_form_for_tensorrt_counts_the_same_nodes():
    model = quantize(chain(), calibrated(chain()))
    assert shares(for_tensorrt(model))["node_share_int8"] == shares(model)["node_share_int8"] == 1


def test_the_proof_of_int8(tmp_path):
    rows = np.arange(5)
    result, out = prove(tmp_path, "onnx_int8", note(quantize(chain(), calibrated(chain())), rows))
    assert result.output == "onnx_int8: 100% of the nodes and 97% of the weights are int8\n"
    metrics = json.loads(out.read_text(encoding="utf-8"))["metrics"]
    assert metrics["precision"] == "int8"
    assert metrics["share"] == metrics["weight_share_int8"] == (3 * 144 + 64) / (3 * 148 + 65)
    assert metrics["share_float16"] == 0
    assert metrics["calibration_method"] == "MinMax"
    assert metrics["calibration_samples"] == 5
    for variant, model, words in (
        ("onnx_int8", chain(), "is called onnx_int8, and none of its weights are int8"),
        ("onnx_int8_mixed", chain(), "none of its weights are int8"),
        ("onnx_fp32", quantize(chain(), calibrated(chain())), "and holds int8 weights"),
    ):
        result, _ = prove(tmp_path, variant, model)
        assert result.exit_code == 1
        assert words in result.output


# ---- the command ---------------------------------------------------------------------------------

CASE = """
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 4
[[inputs]]
name = "x"
shape = [4, 8, 8]
dtype = "float32"
file = "inputs.npy"
[labels]
file = "labels.npy"
"""
LABELS = np.array([0, 1] * 40, np.uint8)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the step on a model, for a case with eighty samples, of which some may be poisoned."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/toy")
    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(CASE, encoding="utf-8")
    np.save(folder / "labels.npy", LABELS)
    samples = {
        "labels": str(folder / "labels.npy"),
        "arrays": {"x": str(folder / "inputs.npy")},
    }
    Path("samples.json").write_text(json.dumps(samples), encoding="utf-8")

    def run_it(model, poisoned=()):
        rows = np.random.default_rng(0).normal(size=(80, 4, 8, 8)).astype(np.float32)
        rows[list(poisoned)] = np.nan
        np.save(folder / "inputs.npy", rows)
        onnx.save(model, "fp32.onnx")
        arguments = [str(folder / "case.toml"), "--samples", "samples.json"]
        arguments += ["--model", "fp32.onnx", "--out", "out/model.onnx"]
        return CliRunner().invoke(quantize_int8.main, arguments)

    return run_it


def test_the_command_writes_a_model_that_ran(command):
    result = command(chain())
    assert result.exit_code == 0, result.output
    rows = calibration_rows(LABELS.astype(bool))
    assert result.output.startswith(
        f"onnx_int8: 4 of 9 nodes quantised, calibrated on {len(rows)} samples, "
    )
    assert result.output.endswith("runs at batch 1, 3, 4\n")
    assert sorted(path.name for path in Path("out").iterdir()) == ["model.onnx"]
    notes = {one.key: one.value for one in onnx.load("out/model.onnx").metadata_props}
    assert notes["calibration_samples"] == str(len(rows))
    first = Path("out/model.onnx").read_bytes()
    assert command(chain()).exit_code == 0
    assert Path("out/model.onnx").read_bytes() == first
    session = open_session(Path("out/model.onnx"), "cpu", 1)
    assert [one.name for one in session.get_inputs()] == ["x"]


def test_only_the_calibration_samples_are_read_for_it(command):
    rows = calibration_rows(LABELS.astype(bool))
    assert 0 < len(rows) < 40
    assert command(chain()).exit_code == 0
    clean = Path("out/model.onnx").read_bytes()
    others = np.setdiff1d(np.arange(80), rows)
    assert command(chain(), poisoned=others).exit_code == 0
    assert Path("out/model.onnx").read_bytes() == clean
    result = command(chain(), poisoned=rows[-1:])
    assert result.exit_code == 1
    assert "a calibration sample of 'x' holds NaN or infinity" in result.output
    assert 'set skip = ["onnx_int8"] in data/toy/case.toml' in result.output
    assert Path("out/model.onnx").read_bytes() == clean


def test_a_model_with_nothing_to_quantise_is_refused(command):
    nodes = [node("Relu", ["x"], ["r"], name="relu"), node("Sigmoid", ["r"], ["y"], name="s")]
    result = command(graph_of(nodes, []))
    assert result.exit_code == 1
    assert "onnx_int8 was asked for, and no node of it is a Conv, Gemm or MatMul" in result.output
    assert "(it has Relu, Sigmoid)" in result.output
    assert 'set skip = ["onnx_int8"] in data/toy/case.toml' in result.output
    assert "Traceback" not in result.output


def test_weights_in_a_second_file_are_refused(command):
    Path("fp32.onnx.data").write_bytes(b"")
    result = command(chain())
    assert result.exit_code == 1
    assert "keeps its weights in a second file" in result.output
    assert 'set skip = ["onnx_int8"] in data/toy/case.toml' in result.output
    assert not Path("out").exists()


def test_ranges_are_all_that_quantize_needs():
    """The search calibrates once: what it holds can be written down and read again."""
    model = chain()
    ranges = calibrated(model)
    again = Ranges(tuple(ranges.nodes), dict(ranges.largest), ranges.samples, ranges.weight_limit)
    assert quantize(model, again) == quantize(model, ranges)
