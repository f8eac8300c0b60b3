"""bfloat16: the conversion against NumPy and with true rounding, and what ONNX Runtime has code for.

The runtime of a GPU is planted: `has(...)` answers as ONNX Runtime does, for the operators named.
"""

import json
import os
import re
from pathlib import Path

import click
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from scripts.backends.onnxruntime import check_bfloat16, convert_bf16
from scripts.backends.onnxruntime.check_bfloat16 import (
    apart,
    ask,
    executed,
    not_made,
    refusal,
    support,
    widened,
)
from scripts.graphs import fp16, half_rounding
from scripts.graphs import session as onnx_session
from scripts.graphs.bf16_forms import NEWEST, counts, operators, opset_of
from scripts.graphs.bf16_passes import LARGEST, convert
from scripts.graphs.fp16_passes import element_types, graphs
from tests.graphs.test_fp16 import (
    PLAIN,
    TRAPS,
    ends,
    feeds,
    graph_of,
    matmul,
    node,
    run,
    tensor,
    value,
    weights,
)

BF16, FLOAT, INT64 = TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.INT64
GRAPHS = {**TRAPS, **PLAIN}
DIGITS = Path(__file__).parents[2] / "model_repository/digits_onnx_fp32/1/model.onnx"


@pytest.fixture
def rounded(monkeypatch):
    """True rounding of every bfloat16 tensor, in a model that the CPU runs in float32."""
    monkeypatch.setattr(half_rounding, "FLOAT16", BF16)
    return half_rounding.rounded


def bf16(array) -> np.ndarray:
    """The nearest bfloat16 of each value, as float32."""
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def images() -> onnx.ModelProto:
    """Convolution, pool, average, product: what a small network is made of."""
    nodes = [
        node("Conv", ["x", "k", "b"], ["c"], pads=[1] * 4, name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        node("GlobalAveragePool", ["p"], ["g"], name="average"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "w", "v"], ["y"], name="gemm"),
    ]
    stored = [weights("k", 4, 1, 3, 3), weights("b", 4), weights("v", 4)]
    return graph_of(nodes, [value("x", ["n", 1, 8, 8])], [value("y")], stored)


def kinds(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Operator -> element types of what its nodes give."""
    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    found: dict[str, set[int]] = {}
    for graph in graphs(model.graph):
        for one in graph.node:
            found.setdefault(one.op_type, set()).update(types[name] for name in one.output if name)
    return found


# ---- the conversion -----------------------------------------------------------------------------


@pytest.mark.parametrize("build", [*GRAPHS.values(), images], ids=[*GRAPHS, "images"])
def test_it_converts_checks_and_agrees_with_every_tensor_rounded(build, rounded) -> None:
    model = build()
    before = model.SerializeToString()
    converted = convert(model, ())
    assert model.SerializeToString() == before
    onnx.checker.check_model(converted, full_check=True)
    assert ends(converted) == ends(model)
    exact = rounded(converted)
    for seed in range(3):
        inputs = feeds(model, seed)
        for wanted, found in zip(run(model, inputs), run(exact, inputs), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS.keys())
def test_with_every_operator_kept_nothing_changes(build) -> None:
    model = build()
    converted = convert(model, operators(model))
    assert opset_of(converted) == opset_of(model)
    assert BF16 not in element_types(onnx.shape_inference.infer_shapes(converted).graph).values()
    if not any("Random" in one.op_type for one in model.graph.node):
        inputs = feeds(model, 0)
        for wanted, found in zip(run(model, inputs), run(converted, inputs), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("build", [*GRAPHS.values(), images], ids=[*GRAPHS, "images"])
def test_each_operator_alone_and_each_kept_alone(build, rounded) -> None:
    """Casts stand at every border between the two precisions, in branches too."""
    model = build()
    since = operators(model)
    inputs = feeds(model, 1)
    wanted = run(model, inputs)
    for kept in [*[since.keys() - {one} for one in since], *[{one} for one in since]]:
        converted = convert(model, kept)
        onnx.checker.check_model(converted, full_check=True)
        for given, found in zip(wanted, run(rounded(converted), inputs), strict=True):
            np.testing.assert_allclose(found, given, rtol=0.05, atol=0.1)
        made = kinds(converted)
        assert not any(BF16 in made.get(one, set()) for one in kept if one != "Cast")


def test_it_is_what_numpy_computes_in_bfloat16(rounded) -> None:
    nodes = [
        matmul(),
        node("Add", ["a", "t"], ["b"], name="add"),
        node("Relu", ["b"], ["c"], name="relu"),
        node("Mul", ["c", "t"], ["y"], name="mul"),
    ]
    model = graph_of(nodes, stored=[weights("t", 4)])
    stored = {one.name: bf16(numpy_helper.to_array(one)) for one in model.graph.initializer}
    x = feeds(model, 7)["x"]
    a = bf16(bf16(x) @ stored["w"])
    wanted = bf16(np.maximum(bf16(a + stored["t"]), 0) * stored["t"])
    exact = rounded(convert(model, ()))
    np.testing.assert_array_equal(run(exact, {"x": x})[0], wanted)
    assert not np.array_equal(wanted, run(model, {"x": x})[0])


@pytest.mark.parametrize(
    ("number", "nearest"),
    [
        (1.0, 1.0),
        (1 + 2.0**-8, 1.0),  # a tie: to the even one
        (1 + 3 * 2.0**-8, 1 + 2.0**-6),  # a tie
        (1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-7),
        (-70000.0, -70144.0),  # beyond float16
        (2.0**-100 * (1 + 2.0**-9), 2.0**-100),  # below float16
        (np.inf, np.inf),
        (LARGEST, LARGEST),
    ],
)
def test_weights_are_rounded_to_nearest_even(number: float, nearest: float) -> None:
    nodes = [node("Mul", ["x", "k"], ["y"], name="mul")]
    converted = convert(graph_of(nodes, stored=[tensor("k", [number])]), ())
    [stored] = [numpy_helper.to_array(one) for one in converted.graph.initializer]
    assert stored.dtype == ml_dtypes.bfloat16
    assert stored.astype(np.float32)[0] == np.float32(nearest)


@pytest.mark.parametrize("number", [np.finfo(np.float32).max, np.finfo(np.float32).min])
def test_a_value_beyond_bfloat16_is_refused_by_name(number: float) -> None:
    model = graph_of([node("Add", ["x", "mask"], ["y"], name="n")], stored=[tensor("mask", number)])
    with pytest.raises(ValueError, match=r"bfloat16 cannot hold -?3.40282e\+38, a value of 'mask'"):
        convert(model, ())
    convert(model, {"Add"})  # it stays float32 with the node that uses it


def test_a_constant_is_stored_rounded() -> None:
    converted = convert(GRAPHS["Constant value_float"](), ())
    assert "Constant" not in kinds(converted)
    assert {one.data_type for one in converted.graph.initializer} == {BF16}


def test_a_weight_for_both_precisions_is_stored_in_both() -> None:
    converted = convert(GRAPHS["initializer shared with Max"](), {"Max"})
    stored = {one.name: one.data_type for one in converted.graph.initializer}
    assert stored == {"w_bf16": BF16, "t": FLOAT, "t_bf16": BF16}


def test_numbers_of_the_shape_stay_float32() -> None:
    """257 samples: a bfloat16 would make 256 or 258 of them."""
    model = GRAPHS["numbers of the shape"]()
    converted = convert(model, ())
    made = {one.name: one for one in converted.graph.node}
    types = element_types(onnx.shape_inference.infer_shapes(converted).graph)
    assert [types[made[name].output[0]] for name in ("to_float", "floor")] == [FLOAT, FLOAT]
    assert types[made["times"].output[0]] == BF16


def test_a_cast_of_integers_in_the_data_gives_bfloat16(rounded) -> None:
    model = GRAPHS["cast from int64"]()
    assert kinds(convert(model, ()))["Mul"] == {BF16}
    assert opset_of(convert(model, ())) == 18


def test_the_opset_rises_only_where_an_operator_needs_it() -> None:
    assert operators(images()) == {
        "Conv": NEWEST,
        "Relu": 18,
        "MaxPool": NEWEST,
        "GlobalAveragePool": NEWEST,
        "Flatten": 18,
        "Gemm": 18,
    }
    assert opset_of(convert(images(), ())) == NEWEST
    assert opset_of(convert(images(), {"Conv", "MaxPool", "GlobalAveragePool"})) == 18
    assert opset_of(convert(images(), operators(images()), NEWEST)) == NEWEST
    assert convert(images(), ()).ir_version == 10


def test_an_operator_without_a_bfloat16_form_stays_float32() -> None:
    model = GRAPHS["TopK"]()
    assert operators(model) == {"MatMul": 18, "TopK": None, "Add": 18}
    made = kinds(convert(model, ()))
    assert made["TopK"] == {FLOAT, INT64}
    assert made["Add"] == {BF16}


def test_no_cast_stands_between_two_bfloat16_nodes() -> None:
    converted = convert(images(), ())
    names = [one.op_type for one in converted.graph.node if one.op_type != "Cast"]
    assert names == ["Conv", "Relu", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm"]
    assert sum(one.op_type == "Cast" for one in converted.graph.node) == 2
    assert {one.data_type for one in converted.graph.initializer} == {BF16}
    assert counts(converted) == (6, 6)
    assert counts(images()) == (0, 6)
    assert counts(convert(images(), {"Conv", "Relu"})) == (4, 6)


def test_names_that_are_taken_get_out_of_the_way(rounded) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["x_bf16"], name="one"),
        node("Neg", ["x_bf16"], ["w_bf16"], name="y_cast"),
        node("MatMul", ["w_bf16", "w"], ["y"], name="two"),
    ]
    model = graph_of(nodes)
    converted = convert(model, {"Neg"})
    onnx.checker.check_model(converted, full_check=True)
    inputs = feeds(model, 0)
    found = run(rounded(converted), inputs)[0]
    np.testing.assert_allclose(found, run(model, inputs)[0], rtol=0.05, atol=0.1)


@pytest.mark.skipif(not DIGITS.exists(), reason="results of `make all` are not here")
def test_the_bundled_model_in_true_bfloat16_is_near(rounded) -> None:
    model = onnx.load(DIGITS)
    inputs = feeds(model, 0)
    found = run(rounded(convert(model, ())), inputs)[0]
    wanted = run(model, inputs)[0]
    np.testing.assert_allclose(found, wanted, atol=0.2)
    assert not np.array_equal(found, wanted)


# ---- what the CPU of ONNX Runtime has -----------------------------------------------------------


def test_the_cpu_says_what_it_has_no_code_for() -> None:
    """ONNX Runtime's own words, on which check_bfloat16 relies."""
    model = convert(images(), operators(images()).keys() - {"Gemm"})
    with pytest.raises(Exception, match="NOT_IMPLEMENTED") as caught:
        onnxruntime.InferenceSession(model.SerializeToString())
    assert type(caught.value).__name__ == "NotImplemented"
    assert str(caught.value) == (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Gemm(13) "
        "node with name 'gemm'"
    )
    assert refusal(model, "cpu") == str(caught.value)


def test_another_failure_is_no_missing_code() -> None:
    model = convert(images(), operators(images()).keys() - {"Conv"})
    model.opset_import[0].version = 18  # in which Conv takes no bfloat16
    with pytest.raises(click.ClickException, match="INVALID_GRAPH"):
        refusal(model, "cpu")


def test_the_cpu_computes_what_only_moves_numbers() -> None:
    """Flatten has code for bfloat16: what comes out are the inputs, rounded, and no cast was added."""
    nodes = [node("Flatten", ["x"], ["y"], name="flatten")]
    model = convert(graph_of(nodes), ())
    assert refusal(model, "cpu") is None
    x = feeds(model, 0)["x"]
    np.testing.assert_array_equal(run(model, {"x": x})[0], bf16(x))
    ran = executed(model, "cpu", {"x": x})
    assert ("Flatten", {"bfloat16"}) in ran.values()


def test_a_cast_put_in_by_onnx_runtime_is_seen() -> None:
    """What it does to float16 on a CPU, and might do to bfloat16 some day."""
    half = fp16.convert(images())
    ran = executed(half, "cpu", feeds(images(), 0))
    assert ("Gemm", {"float"}) in ran.values()
    assert not any("float16" in given for _, given in ran.values())
    assert widened(convert(images(), ()), ran) == ["Conv", "Gemm"]


def kernels(model: onnx.ModelProto) -> dict:
    """What runs of a model as it stands."""
    names = {FLOAT: "float", BF16: "bfloat16", INT64: "int64"}
    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    return {
        one.name: (one.op_type, {names[types[name]] for name in one.input if name})
        for one in model.graph.node
    }


def test_as_many_may_run_in_float32_as_are_left_in_it() -> None:
    model = convert(images(), {"Conv"})
    ran = kernels(model)
    assert widened(model, ran) == []
    fused = dict(ran) | {"conv": ("FusedConv", {"float"})}
    assert widened(model, fused) == []
    assert widened(model, ran | {"gemm": ("FusedGemm", {"float"})}) == ["Conv", "FusedGemm"]
    del ran["conv"], ran["gemm"]
    assert widened(model, ran) == ["all of it"], "nothing ran that was to be seen"


def test_the_cpu_supports_no_operator_with_weights() -> None:
    found = support(images(), "cpu", feeds(images(), 0))
    assert found["made"] is False
    assert found["reason"] == (
        f"not made: ONNX Runtime {onnxruntime.__version__} computes none of Conv, Gemm in bfloat16 "
        "on the CPU"
    )
    assert found["kept_operators"] == list(operators(images()))
    assert re.fullmatch(r"\[ONNXRuntimeError\] : 9 : .* for Conv\(22\) node with name 'conv'",
                        found["answers"]["Conv"])  # fmt: skip


def test_a_model_without_weights() -> None:
    model = graph_of([node("Relu", ["x"], ["y"], name="relu")])
    found = support(model, "cpu", feeds(model, 0))
    assert found["reason"].endswith("computes no operator with weights in bfloat16 on the CPU")


# ---- a runtime that has more --------------------------------------------------------------------


class Planted:
    """Answers as ONNX Runtime does when it has code for bfloat16 of the operators in `has` alone."""

    def __init__(self, monkeypatch, *has: str) -> None:
        self.has = {*has, "Cast"}
        self.opened: list[onnx.ModelProto] = []
        self.ran: list[onnx.ModelProto] = []
        monkeypatch.setattr(check_bfloat16, "open_session", self.open)
        monkeypatch.setattr(check_bfloat16, "executed", self.execute)

    def open(self, source: bytes, device: str, threads: int) -> onnx.ModelProto:
        model = onnx.load_from_string(source)
        onnx.checker.check_model(model, full_check=True)
        self.opened.append(model)
        types = element_types(onnx.shape_inference.infer_shapes(model).graph)
        for one in model.graph.node:
            low = BF16 in {types.get(name) for name in (*one.input, *one.output)}
            if low and f"{one.op_type}" not in self.has:
                raise click.ClickException(
                    f"ONNX Runtime does not load a model on {device}: [ONNXRuntimeError] : 9 : "
                    f"NOT_IMPLEMENTED : Could not find an implementation for {one.op_type}"
                )
        return model

    def execute(self, model: onnx.ModelProto, device: str, batch: dict) -> dict:
        self.ran.append(model)
        return kernels(self.open(model.SerializeToString(), device, 1))


def test_what_has_no_code_stays_float32_and_one_batch_runs(monkeypatch) -> None:
    planted = Planted(monkeypatch, "Gemm", "Relu", "Flatten")
    found = support(images(), "cuda", feeds(images(), 0))
    assert found["made"] is True
    assert found["kept_operators"] == ["Conv", "MaxPool", "GlobalAveragePool"]
    assert found["nodes_bfloat16"] == 3
    assert found["reason"].endswith("computes 3 of 6 nodes in bfloat16 on the GPU")
    [ran] = planted.ran
    assert ran == convert(images(), found["kept_operators"])
    assert opset_of(ran) == 18, "nothing in bfloat16 needs more"


def test_with_code_for_conv_all_is_asked_in_its_opset(monkeypatch) -> None:
    planted = Planted(monkeypatch, *operators(images()))
    found = support(images(), "cuda", feeds(images(), 0))
    assert found["kept_operators"] == []
    assert found["answers"] == {}
    assert found["nodes_bfloat16"] == 6
    asked = {
        one.op_type
        for model in planted.opened
        if opset_of(model) == NEWEST
        for one in model.graph.node
        if BF16 in kinds(model)[one.op_type]
    }
    assert asked == {*operators(images()), "Cast"}


def test_data_movement_alone_is_no_support(monkeypatch) -> None:
    planted = Planted(monkeypatch, "Relu", "MaxPool", "GlobalAveragePool", "Flatten")
    found = support(images(), "cuda", feeds(images(), 0))
    assert found["made"] is False
    assert found["reason"].endswith("computes none of Conv, Gemm in bfloat16 on the GPU")
    assert planted.ran == []


def test_casts_that_are_put_in_are_no_support(monkeypatch) -> None:
    planted = Planted(monkeypatch, *operators(images()))
    monkeypatch.setattr(
        check_bfloat16,
        "executed",
        lambda *given: planted.execute(*given) | {"gemm": ("Gemm", {"float"})},
    )
    found = support(images(), "cuda", feeds(images(), 0))
    assert found["made"] is False
    assert (
        "casts to float32 for Gemm instead of computing in bfloat16 on the GPU" in found["reason"]
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (click.ClickException("it does not load: [ONNXRuntimeError] : 1 : FAIL :\n CUDNN  7"),
         "fails on it on the GPU: [ONNXRuntimeError] : 1 : FAIL : CUDNN 7"),
        (RuntimeError("bad\nallocation"), "fails on it on the GPU: bad allocation"),
        (KeyError(), "fails on it on the GPU: KeyError"),
    ],
)  # fmt: skip
def test_an_unexpected_failure_is_told_in_its_own_words(monkeypatch, error, said: str) -> None:
    def fails(*_: object) -> None:
        raise error

    Planted(monkeypatch, "Gemm")
    monkeypatch.setattr(check_bfloat16, "executed", fails)
    found = ask(images().SerializeToString(), "cuda", feeds(images(), 0))
    assert found["made"] is False
    assert found["reason"].endswith(said)


def test_a_value_beyond_bfloat16_is_a_reason(monkeypatch) -> None:
    Planted(monkeypatch, "MatMul", "Add")
    nodes = [matmul(), node("Add", ["a", "mask"], ["y"], name="add")]
    model = graph_of(nodes, stored=[tensor("mask", [np.finfo(np.float32).min])])
    found = ask(model.SerializeToString(), "cuda", feeds(model, 0))
    assert found["reason"].startswith("not made: bfloat16 cannot hold -3.40282e+38, a value of ")


def crash() -> None:
    os.abort()


def test_a_crash_of_the_native_code_is_told() -> None:
    assert apart(crash)["reason"] == (
        "not made: ONNX Runtime itself crashes on the model in bfloat16"
    )


# ---- the commands -------------------------------------------------------------------------------


@pytest.fixture
def case(read_toy):
    """The toy case with a model of two nodes, and both commands."""
    model = graph_of(
        [
            node("MatMul", ["x", "column"], ["a"], name="product"),
            node("Flatten", ["a"], ["y"], name="last"),
        ],
        [value("x", ["n", 2])],
        [value("y", ["n", 1])],
        [weights("column", 2, 1)],
    )
    onnx.save_model(model, "fp32.onnx")
    given = [str(read_toy.toml), "--samples", str(read_toy.samples), "--model", "fp32.onnx"]
    answer = read_toy.results / "onnx_bf16.support.json"

    def check():
        arguments = [*given, "--mode", "local", "--device", "cpu", "--out", str(answer)]
        return CliRunner().invoke(check_bfloat16.main, arguments)

    def convert_it(**content):
        if content:
            answer.write_text(json.dumps(content), encoding="utf-8")
        arguments = [*given, "--support", str(answer), "--out", "out/model.onnx"]
        return CliRunner().invoke(convert_bf16.main, arguments)

    return check, convert_it, answer


def test_the_command_writes_the_answer(case) -> None:
    check, convert_it, answer = case
    result = check()
    assert result.exit_code == 0, result.output
    reason = (
        f"not made: ONNX Runtime {onnxruntime.__version__} computes none of MatMul in bfloat16 on "
        "the CPU"
    )
    assert result.output == f"onnx_bf16: {reason}\n"
    content = json.loads(answer.read_text(encoding="utf-8"))
    assert '\n "made": false,\n' in answer.read_text(encoding="utf-8"), "the Makefile looks for it"
    answers = content.pop("answers")
    assert list(answers) == ["MatMul"]
    assert {key: content[key] for key in content.keys() - {"inputs", "versions"}} == {
        "variant": "onnx_bf16",
        "step": "support",
        "mode": "local",
        "device": "cpu",
        "gpu": None,
        "made": False,
        "reason": reason,
        "kept_operators": ["MatMul", "Flatten"],
        "nodes_bfloat16": 0,
        "nodes": 2,
    }
    refused = convert_it()
    assert refused.exit_code == 1
    assert reason in refused.output
    assert not Path("out").exists()


def test_the_command_takes_no_weights_in_a_second_file(case) -> None:
    check, _, answer = case
    Path("fp32.onnx.data").write_bytes(b"")
    assert check().exit_code == 0
    content = json.loads(answer.read_text(encoding="utf-8"))
    assert content["reason"].startswith("not made: its weights are in a second file")
    assert content["nodes"] == 2


def test_a_float32_model_that_does_not_load_is_an_error(case) -> None:
    check, _, answer = case
    Path("fp32.onnx").write_bytes(b"no model")
    result = check()
    assert result.exit_code == 1
    assert result.output.startswith("Error: ONNX Runtime does not load fp32.onnx on cpu")
    assert not answer.exists()


def stand_in(monkeypatch) -> list[str]:
    """The CPU opens what a GPU is asked for. The devices that were asked for."""
    opened, asked = onnx_session.open_session, []

    def open_it(path, device, threads):
        asked.append(device)
        return opened(path, "cpu", threads)

    monkeypatch.setattr(onnx_session, "open_session", open_it)
    return asked


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_command_converts_what_runs_here(case, device: str, monkeypatch) -> None:
    """The CPU has Flatten in bfloat16. For a GPU's file it stands in."""
    _, convert_it, _ = case
    asked = stand_in(monkeypatch)
    content = {"made": True, "reason": "", "kept_operators": ["MatMul"], "device": device}
    result = convert_it(**content)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r"onnx_bf16: 1 of 2 nodes in bfloat16, opset 18, 0.0\d+ MB, runs at batch 1, 3, 4\n",
        result.output,
    )
    assert kinds(onnx.load("out/model.onnx"))["Flatten"] == {BF16}
    assert [one.name for one in Path("out").iterdir()] == ["model.onnx"]
    assert asked == [device], "tried where it is to run"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_does_not_load_is_not_left_there(case, device: str, monkeypatch) -> None:
    _, convert_it, _ = case
    stand_in(monkeypatch)
    result = convert_it(made=True, reason="", kept_operators=[], device=device)
    assert result.exit_code == 1
    assert "NOT_IMPLEMENTED" in result.output
    assert list(Path("out").iterdir()) == []


def test_not_made_has_the_same_keys_as_made(monkeypatch) -> None:
    Planted(monkeypatch, "Gemm")
    assert not_made("").keys() == support(images(), "cuda", feeds(images(), 0)).keys()
