"""The comparison layer by layer: planted faults come back by name, numbers agree with NumPy's."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts.backends.onnxruntime.convert_fp16 import convert
from scripts.graphs.half_rounding import rounded
from scripts.report.plot_layers import draw
from scripts.score.compare_layers import (
    add,
    compare_models,
    describe,
    first_jump,
    worst_samples,
)
from scripts.variants import BY_NAME


class Data:
    """Samples without a case: input "x", random rows."""

    def __init__(self, count: int, width: int) -> None:
        self.x = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)

    def rows(self, indices: list[int]) -> dict[str, np.ndarray]:
        return {"x": self.x[indices]}


def graph(*nodes: onnx.NodeProto, **stored: np.ndarray) -> onnx.ModelProto:
    """x (n, 4) to y (n, 4) through `nodes`."""
    made = helper.make_graph(
        list(nodes),
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()],
    )
    return helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def compared(model: onnx.ModelProto, folder: Path) -> tuple[dict, float | None]:
    source, half = folder / "source.onnx", folder / "half.onnx"
    onnx.save_model(model, source)
    onnx.save_model(convert(onnx.load(source)), half)
    tensors, unmarked = compare_models(
        None, Data(20, 4), list(range(20)), source, half, BY_NAME["onnx_fp16"]
    )
    return {one["name"]: one for one in tensors}, unmarked


def test_an_activation_beyond_half_of_the_range_is_named_with_its_node(tmp_path: Path) -> None:
    model = graph(
        helper.make_node("Mul", ["x", "large"], ["hot"], "heat"),
        helper.make_node("Mul", ["hot", "small"], ["y"], "cool"),
        large=np.full(1, 30000.0),
        small=np.full(1, 1 / 30000),
    )
    tensors, _ = compared(model, tmp_path)
    assert tensors["hot"]["node"] == "heat"
    expected = np.abs(Data(20, 4).x).max() * 30000
    assert tensors["hot"]["magnitude"] == pytest.approx(expected, rel=1e-6)
    assert expected > 65504, "so the marked tensor overflows although the CPU hides it"
    assert tensors["hot"]["relative_error"] is None
    assert first_jump(list(tensors.values())) == "hot"
    assert tensors["y"]["magnitude"] < 10


def test_the_first_jump_is_where_digits_cancel(tmp_path: Path) -> None:
    model = graph(
        helper.make_node("Mul", ["x", "two"], ["before"], "double"),
        helper.make_node("Add", ["before", "far"], ["shifted"], "shift"),
        helper.make_node("Sub", ["shifted", "far"], ["back"], "cancel"),
        helper.make_node("Relu", ["back"], ["y"], "after"),
        two=np.full(1, 2.0),
        far=np.full(1, 2000.0),
    )
    tensors, _ = compared(model, tmp_path)
    assert first_jump(list(tensors.values())) == "back"
    assert tensors["back"]["node"] == "cancel"
    assert list(tensors) == ["before", "shifted", "back", "y"]


def test_errors_are_those_of_numpy(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 4))
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["inner"], "mix"),
        helper.make_node("Relu", ["inner"], ["y"], "cut"),
        w=weights,
    )
    tensors, unmarked = compared(model, tmp_path)
    run = {}
    for name in ("source", "half"):
        session = onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"))
        run[name] = session.run(None, {"x": Data(20, 4).x})[0].astype(np.float64)
    expected = np.linalg.norm(run["half"] - run["source"]) / np.linalg.norm(run["source"])
    # the marked graph may round at other places than the one that is served
    assert tensors["y"]["relative_error"] == pytest.approx(expected, abs=5e-4)
    assert 0 < tensors["y"]["relative_error"] < 2e-3
    assert unmarked is not None
    assert unmarked < 0.01


def test_flipped_samples_come_first_then_the_nearest() -> None:
    reference = np.array([3.0, 0.4, -0.1, 0.2, -5.0, 1.0], np.float32)
    logits = np.array([-3.0, 0.4, 0.1, 0.2, -5.0, 1.0], np.float32)
    assert worst_samples(logits, reference, 0.0) == [2, 0, 3, 1, 5, 4]


def test_sums_over_batches_are_those_of_all_samples_at_once() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=(2, 12, 3)).astype(np.float32)
    whole: dict = {}
    parts: dict = {}
    add(whole, {"t": a, "only": a}, {"t": b})
    for start in (0, 4, 8):
        add(parts, {"t": a[start : start + 4]}, {"t": b[start : start + 4]})
    assert parts["t"] == pytest.approx(whole["t"], rel=1e-12)
    assert list(whole) == ["t"]


def test_whole_numbers_are_no_tensors_to_compare() -> None:
    sums: dict = {}
    add(sums, {"t": np.arange(3)}, {"t": np.arange(3)})
    assert sums == {}


def test_a_tensor_of_zeros_has_the_error_itself() -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"], "cut"))
    found = describe(model.graph, {"y": [4.0, 0.0, 0.0]})
    assert found[0]["relative_error"] == 2.0


def test_the_picture_takes_tensors_that_are_not_finite() -> None:
    tensors = [
        {"name": "a", "node": "one", "relative_error": 1e-4, "magnitude": 3.0},
        {"name": "b", "node": "two", "relative_error": None, "magnitude": 70000.0},
    ]
    figure = draw({"variant": "onnx_fp16", "source": "onnx_fp32", "samples": [1, 2],
                   "tensors": tensors, "first_jump": "b"})  # fmt: skip
    above, below = figure.axes
    assert above.get_legend_handles_labels()[1] == ["not finite", "first jump: two"]
    assert [label.get_text() for label in below.get_xticklabels()] == ["one", "two"]


def test_rounding_to_half_is_that_of_numpy_and_overflows() -> None:
    model = graph(
        helper.make_node("Mul", ["x", "large"], ["hot"], "heat"),
        helper.make_node("Mul", ["hot", "small"], ["y"], "cool"),
        large=np.full(1, 30000.0),
        small=np.full(1, 1 / 30000),
    )
    half = convert(model)
    x = Data(20, 4).x
    with np.errstate(over="ignore"):
        hot = (x.astype(np.float16).astype(np.float32) * np.float32(30000)).astype(np.float16)
    small = np.float16(1 / 30000)
    expected = (hot.astype(np.float32) * np.float32(small)).astype(np.float16)
    run = onnxruntime.InferenceSession(rounded(half).SerializeToString()).run(None, {"x": x})[0]
    assert np.array_equal(run, expected.astype(np.float32))
    assert np.isinf(run).any()
    hidden = onnxruntime.InferenceSession(half.SerializeToString()).run(None, {"x": x})[0]
    assert np.isfinite(hidden).all(), "what a CPU shows without this"


def test_rounding_inside_branches_and_of_a_float16_input() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 4])
        node = helper.make_node(operator, ["x"], [name], f"make_{name}")
        return helper.make_graph([node], name, [], [value])

    choice = helper.make_node(
        "If",
        ["yes"],
        ["y"],
        "choose",
        then_branch=branch("a", "Exp"),
        else_branch=branch("b", "Neg"),
    )
    made = helper.make_graph(
        [choice],
        "planted",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 4])],
    )
    model = helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    x = Data(3, 4).x.astype(np.float16)
    session = onnxruntime.InferenceSession(rounded(model).SerializeToString())
    run = session.run(None, {"x": x, "yes": np.array(True)})[0]
    assert run.dtype == np.float32
    assert np.array_equal(run, np.exp(x.astype(np.float32)).astype(np.float16).astype(np.float32))
