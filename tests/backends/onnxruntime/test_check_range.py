"""The largest magnitudes: against NumPy on every kind of graph, and planted ones that come back by name."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from scripts.backends.onnxruntime import check_range
from scripts.backends.onnxruntime.check_range import words
from scripts.graphs.fp16 import LARGEST, convert
from scripts.graphs.range import LIMIT, beyond, measure, opened, watch
from tests.graphs.test_fp16 import (
    PLAIN,
    TRAPS,
    branch,
    feeds,
    graph_of,
    if_graph,
    matmul,
    node,
    tensor,
    value,
    weights,
)

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
GRAPHS = {**TRAPS, **PLAIN}


def magnitudes(model: onnx.ModelProto, batch: dict, folder: Path) -> dict[str, float]:
    """Name -> largest magnitude for one batch."""
    onnx.save_model(model, folder / "model.onnx")
    with opened(folder / "model.onnx", "cpu") as (run, watched, _):
        return dict(zip([one.name for one in watched], run(batch).tolist(), strict=True))


def marked(model: onnx.ModelProto, batch: dict) -> dict[str, np.ndarray]:
    """Every float32 tensor of the outer graph, by making each an output: the second opinion."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {one.name: one for one in (*inferred.graph.value_info, *inferred.graph.output)}
    names = [name for one in model.graph.node for name in one.output if name]
    names = [n for n in names if kinds[n].type.tensor_type.elem_type == TensorProto.FLOAT]
    everything = onnx.ModelProto.FromString(model.SerializeToString())
    del everything.graph.output[:]
    everything.graph.output.extend(kinds[name] for name in names)
    session = onnxruntime.InferenceSession(everything.SerializeToString())
    return dict(zip(names, session.run(None, batch), strict=True))


def deterministic(model: onnx.ModelProto) -> bool:
    return not any("Random" in one.op_type for one in model.graph.node)


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS.keys())
def test_every_outer_tensor_agrees_with_numpy(build, tmp_path: Path) -> None:
    model = build()
    for seed in range(3):
        batch = feeds(model, seed)
        found = magnitudes(model, batch, tmp_path)
        wanted = {name: float(np.abs(array).max()) for name, array in marked(model, batch).items()}
        assert wanted
        assert wanted.keys() <= found.keys()
        if deterministic(model):
            for name, number in wanted.items():
                assert found[name] == pytest.approx(number, rel=1e-6), name


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS.keys())
def test_the_model_gives_what_it_gave_and_sees_everything(build) -> None:
    model = build()
    before = model.SerializeToString()
    changed, watched, unseen = watch(model)
    assert model.SerializeToString() == before
    assert unseen == []
    onnx.checker.check_model(changed, full_check=True)
    batch, names = feeds(model, 0), [one.name for one in model.graph.output]
    assert [one.name for one in changed.graph.output][: len(names)] == names
    sessions = [onnxruntime.InferenceSession(one.SerializeToString()) for one in (model, changed)]
    if deterministic(model):
        for wanted, found in zip(*(one.run(names, batch) for one in sessions), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert len({one.scalar for one in watched}) == len(watched)


def planted(*numbers: float) -> onnx.ModelProto:
    """x + v: of x = 0 the inner tensor is v itself."""
    nodes = [node("Add", ["x", "v"], ["a"], name="add"), node("Relu", ["a"], ["y"], name="relu")]
    return graph_of(nodes, stored=[tensor("v", numbers)])


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_seen_at_every_place(place, number, tmp_path: Path) -> None:
    numbers = [1.0, -2.0, 3.0, 0.5]
    numbers[place] = number
    found = magnitudes(planted(*numbers), {"x": np.zeros((3, 4), np.float32)}, tmp_path)
    assert found["a"] == np.inf
    assert found["x"] == 0


@pytest.mark.parametrize(("numbers", "largest"), [((-7, 1, 2, 3), 7), ((-1, -2, -3, -4), 4)])
def test_a_negative_magnitude_counts(numbers, largest, tmp_path: Path) -> None:
    found = magnitudes(planted(*numbers), {"x": np.zeros((1, 4), np.float32)}, tmp_path)
    assert found["a"] == largest


def test_finite_values_whose_sum_overflows_stay_finite(tmp_path: Path) -> None:
    found = magnitudes(planted(*[3e38] * 4), {"x": np.zeros((3, 4), np.float32)}, tmp_path)
    assert found["a"] == pytest.approx(3e38)


def test_scalars_empty_tensors_and_other_types(tmp_path: Path) -> None:
    nodes = [
        matmul(),
        node("ReduceMean", ["a"], ["scalar"], keepdims=0, name="mean"),
        node("Slice", ["a", "zero", "zero"], ["empty"], name="slice"),
        node("Greater", ["a", "scalar"], ["verdict"], name="greater"),
        node("Cast", ["a"], ["half"], to=TensorProto.FLOAT16, name="half"),
        node("Shape", ["a"], ["shape"], name="shape"),
        node("Add", ["a", "scalar"], ["y"], name="add"),
    ]
    model = graph_of(nodes, stored=[tensor("zero", [0], np.int64)])
    x = {"x": np.ones((2, 4), np.float32)}
    found = magnitudes(model, x, tmp_path)
    assert found.keys() == {"x", "a", "scalar", "empty", "y"}
    assert found["empty"] == 0
    assert found["scalar"] == pytest.approx(abs(marked(model, x)["scalar"]))


def test_both_branches_of_an_if_and_one_inside_the_other(tmp_path: Path) -> None:
    def times(name: str, number: float) -> onnx.GraphProto:
        stored = [tensor(f"k{name}", [number])]
        nodes = [
            node("Mul", ["a", f"k{name}"], [f"m{name}"], name=f"mul{name}"),
            node("Neg", [f"m{name}"], [name], name=f"neg{name}"),
        ]
        return branch(nodes, name, stored)

    choice = node("If", ["d"], ["p"], name="inner", then_branch=times("p1", 10),
                  else_branch=times("p2", 100))  # fmt: skip
    nodes = [
        matmul(),
        node("If", ["c"], ["b"], name="if", then_branch=branch([choice], "p"),
             else_branch=times("q", 1000)),
        node("Relu", ["b"], ["y"], name="after"),
    ]  # fmt: skip
    model = graph_of(nodes, [value("x"), value("c", [], BOOL), value("d", [], BOOL)])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for c, d, taken, factor in [(1, 1, "p1", 10), (1, 0, "p2", 100), (0, 1, "q", 1000)]:
        batch = {"x": x, "c": np.array(bool(c)), "d": np.array(bool(d))}
        found = magnitudes(model, batch, tmp_path)
        assert found["b"] == pytest.approx(found["a"] * factor, rel=1e-6)
        for name in ("p1", "p2", "q"):
            assert found[f"m{name}"] == pytest.approx(found["b"] if name == taken else 0, rel=1e-6)


def test_the_turns_of_a_loop(tmp_path: Path) -> None:
    """2, 4, ... doubled in each turn, and halved again at the end of it by a node that is seen too."""
    body = helper.make_graph(
        [
            node("Mul", ["state", "two"], ["doubled"], name="double"),
            node("Mul", ["doubled", "minus"], ["turned"], name="turn_over"),
            node("Abs", ["turned"], ["next"], name="abs"),
            node("Identity", ["go"], ["go_on"], name="body_go"),
        ],
        "body",
        [value("turn", [], INT64), value("go", [], BOOL), value("state")],
        [value("go_on", [], BOOL), value("next")],
    )
    loop = node("Loop", ["turns", "", "x"], ["z"], name="loop", body=body)
    nodes = [loop, node("Neg", ["z"], ["y"], name="neg")]
    stored = [tensor("two", [2.0]), tensor("minus", [-1.0])]
    inputs = [value("x"), value("turns", [], INT64)]
    model = graph_of(nodes, inputs, stored=stored)
    for turns, largest in [(5, 32.0), (0, 0.0)]:
        batch = {"x": np.ones((2, 4), np.float32), "turns": np.array(turns)}
        found = magnitudes(model, batch, tmp_path)
        assert found["doubled"] == found["turned"] == found["next"] == largest
        assert found["z"] == max(largest, 1.0)
    batch = {"x": np.array([[1, np.nan, 1, 1]], np.float32), "turns": np.array(2)}
    assert magnitudes(model, batch, tmp_path)["turned"] == np.inf


@pytest.mark.parametrize("axes", [{}, {"scan_output_axes": [1], "scan_output_directions": [1]}])
def test_the_turns_of_a_scan(axes, tmp_path: Path) -> None:
    """The running sum over the rows."""
    body = helper.make_graph(
        [
            node("Add", ["sum", "row"], ["next"], name="add"),
            node("Mul", ["next", "ten"], ["tens"], name="mul"),
        ],
        "body",
        [value("sum", [4]), value("row", [4])],
        [value("next", [4]), value("tens", [4])],
    )
    scan = node("Scan", ["start", "x"], ["last", "all"], name="scan", body=body,
                num_scan_inputs=1, **axes)  # fmt: skip
    inputs, outputs = [value("x")], [value("last", [4])]
    stored = [tensor("start", np.zeros(4)), tensor("ten", [10.0])]
    model = graph_of([scan], inputs, outputs, stored)
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    found = magnitudes(model, {"x": x}, tmp_path)
    assert found["next"] == pytest.approx(np.abs(np.cumsum(x, axis=0)).max(), rel=1e-5)
    assert found["tens"] == pytest.approx(found["next"] * 10)
    assert found["all"] == found["tens"]


def test_names_that_collide_get_out_of_the_way(tmp_path: Path) -> None:
    nodes = [node("Neg", ["x"], ["range0"], name="neg"), node("Abs", ["range0"], ["y"], name="abs")]
    nodes[1].input[0] = "range0"
    model = graph_of([*nodes, node("Relu", ["x"], ["range_1"], name="relu")])
    found = magnitudes(model, {"x": np.full((1, 4), -3, np.float32)}, tmp_path)
    assert found == {"x": 3, "range0": 3, "y": 3, "range_1": 0}


def test_the_same_name_in_both_branches(tmp_path: Path) -> None:
    then = branch([node("Add", ["a", "t"], ["same"], name="p")], "same")
    other = branch([node("Mul", ["a", "t"], ["same"], name="q")], "same")
    onnx.save_model(if_graph(then, other), tmp_path / "model.onnx")
    with opened(tmp_path / "model.onnx", "cpu") as (_, watched, unseen):
        assert sorted(one.node for one in watched if one.name == "same") == ["p", "q"]
        assert unseen == []


def test_what_cannot_be_seen_is_named() -> None:
    nodes = [
        matmul(),
        node("SequenceConstruct", ["a", "a"], ["both"], name="pair"),
        node("ConcatFromSequence", ["both"], ["y"], axis=0, name="join"),
    ]
    _, watched, unseen = watch(graph_of(nodes))
    assert unseen == ["both"]
    assert [one.name for one in watched] == ["x", "a", "y"]
    found = [{"name": "a", "largest": 1.0}]
    assert words(found, 3, unseen).endswith("half of float16's range; 1 not seen, the first both")


class Rows:
    """Samples without a case."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"x": self.x[start:stop]}


def hot() -> onnx.ModelProto:
    """x * 30000 and back."""
    nodes = [
        node("Mul", ["x", "large"], ["hot"], name="heat"),
        node("Mul", ["hot", "small"], ["y"], name="cool"),
    ]
    return graph_of(nodes, stored=[tensor("large", [30000]), tensor("small", [1 / 30000])])


def measured(model: onnx.ModelProto, x: np.ndarray, size: int, folder: Path) -> dict:
    onnx.save_model(model, folder / "model.onnx")
    with opened(folder / "model.onnx", "cpu") as (run, watched, _):
        tensors = measure(run, watched, Rows(x), size)
    return {one["name"]: one for one in tensors}


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("row", [0, 5, 9])
def test_the_sample_is_found_whatever_the_batch(size: int, row: int, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(10, 4)).astype(np.float32)
    x[row, 2] = -1.5
    tensors = measured(hot(), x, size, tmp_path)
    assert tensors["hot"] == {
        "name": "hot",
        "node": "heat",
        "operator": "Mul",
        "largest": 45000.0,
        "sample": row,
    }
    assert tensors["x"] == {"name": "x", "node": "", "operator": "input", "largest": 1.5}
    assert "sample" not in tensors["y"]


def test_the_first_sample_that_is_not_finite_is_named(tmp_path: Path) -> None:
    x = np.full((8, 4), 2.5, np.float32)
    x[4, 3] = x[7, 0] = np.nan
    tensors = measured(hot(), x, 3, tmp_path)
    assert tensors["hot"]["largest"] is None
    assert tensors["hot"]["sample"] == 4


def test_no_samples_measure_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        measure(lambda batch: np.zeros(0), [], Rows(np.zeros((0, 4), np.float32)), 4)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([1.0, 23.44], "the largest magnitude 23.4 at b; none beyond half of float16's range"),
        ([40000.0, 33000.0], "4e+04 at a; 2 beyond half of float16's range, the first a"),
        ([40000.0, 70000.0], "7e+04 at b; 1 beyond float16's range, the first b"),
        ([None, 70000.0], "not finite at a; 2 beyond float16's range, the first a"),
    ],
)
def test_the_finding_in_words(numbers, said) -> None:
    tensors = [{"name": n, "largest": v} for n, v in zip("ab", numbers, strict=True)]
    assert words(tensors, 899, []).startswith("2 tensors of 899 samples, the largest magnitude ")
    assert words(tensors, 899, []).endswith(said)


# ---- what a converted model holds in float16 ----------------------------------------------------


def all_beyond(model: onnx.ModelProto) -> dict:
    """A measurement in which every tensor is too large."""
    _, watched, _ = watch(model)
    return {"tensors": [{"name": one.name, "largest": None} for one in watched]}


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS.keys())
def test_only_what_stays_float32_all_along_is_left_out(build) -> None:
    """Second opinion: of a tensor set to a huge value, does its float16 form exist under any name?"""
    model = build()
    converted = convert(model)
    found = set(beyond(converted, all_beyond(model), LARGEST))
    inferred = onnx.shape_inference.infer_shapes(converted).graph
    half = {
        one.name
        for one in (*inferred.value_info, *inferred.output)
        if one.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    names = {name for one in model.graph.node for name in one.output}
    assert half & names <= found


def chain(*operators: str) -> onnx.ModelProto:
    """x @ w, then each operator with t: its outputs are b0, b1, ..., and y after another product."""
    nodes, last = [matmul()], "a"
    for i, operator in enumerate(operators):
        nodes.append(node(operator, [last, "t"], [f"b{i}"], name=f"n{i}"))
        last = f"b{i}"
    return graph_of([*nodes, matmul(last, "y")], stored=[weights("t", 4)])


def test_a_tensor_between_nodes_that_stay_float32_is_no_float16() -> None:
    """Max and Min stay float32: what Min gives is cast to float16, what Max gives it is not."""
    model = chain("Max", "Min")
    assert beyond(convert(model), all_beyond(model), LARGEST) == ["x", "a", "b1", "y"]


def test_only_those_above_the_limit_and_in_the_order_of_the_model() -> None:
    model = chain("Add", "Mul")
    content = {
        "tensors": [
            {"name": "x", "largest": 1.0},
            {"name": "a", "largest": 65504.0},
            {"name": "b0", "largest": 65505.0},
            {"name": "b1", "largest": None},
            {"name": "y", "largest": 33000.0},
        ]
    }
    converted = convert(model)
    assert beyond(converted, content, LIMIT) == ["b0", "b1"]
    assert beyond(converted, content, LIMIT / 2) == ["a", "b0", "b1", "y"]
    assert beyond(model, content, 0.0) == [], "nothing of it is float16"


@pytest.mark.parametrize("operator", ["Max", "Add"])
def test_an_output_that_is_used_inside_counts_under_its_own_name(operator: str) -> None:
    nodes = [matmul(), node(operator, ["a", "t"], ["y"], name="n"),
             node("Relu", ["y"], ["z"], name="relu")]  # fmt: skip
    model = graph_of(nodes, outputs=[value("y"), value("z")], stored=[weights("t", 4)])
    assert beyond(convert(model), all_beyond(model), LARGEST) == ["x", "a", "y", "z"]


def test_an_input_that_only_float32_nodes_take_is_no_float16() -> None:
    model = GRAPHS["blocked at the input"]()
    assert beyond(convert(model), all_beyond(model), LARGEST) == ["a", "y"]


def test_tensors_in_branches_count() -> None:
    model = GRAPHS["blocked operator in a branch"]()
    found = beyond(convert(model), all_beyond(model), LARGEST)
    assert set(found) == {"x", "a", "r", "m", "p", "q", "b", "y"}


def test_what_is_called_beyond_overflows_with_true_rounding(tmp_path: Path) -> None:
    from scripts.graphs.half_rounding import rounded

    x = np.full((2, 4), 3, np.float32)
    tensors = list(measured(hot(), x, 2, tmp_path).values())
    half = convert(hot())
    assert beyond(half, {"tensors": tensors}, LIMIT) == ["hot"]
    session = onnxruntime.InferenceSession(rounded(half).SerializeToString())
    assert np.isinf(session.run(None, {"x": x})[0]).all()


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def case(read_toy):
    """The toy case, read, and the command on a model of two inputs a row."""
    read_toy.read()
    path, out = Path("models/model.onnx"), read_toy.results / "onnx_fp32.range.json"
    path.parent.mkdir()

    def command(number: float, **options):
        nodes = [
            node("Mul", ["x", "k"], ["hot"], name="heat"),
            node("MatMul", ["hot", "column"], ["y"], name="last"),
        ]
        stored = [tensor("k", [number]), tensor("column", [[1.0], [1.0]])]
        model = graph_of(nodes, [value("x", ["n", 2])], [value("y", ["n", 1])], stored)
        onnx.save_model(model, path, **options)
        arguments = [str(read_toy.toml), "--samples", str(read_toy.samples), "--model", str(path)]
        arguments += ["--mode", "local", "--device", "cpu", "--out", str(out)]
        return CliRunner().invoke(check_range.main, arguments), out

    return command


def test_the_command_writes_what_it_saw(case) -> None:
    result, out = case(20000.0)
    assert result.exit_code == 0, result.output
    assert result.output == (
        "onnx_fp32: 3 tensors of 6 samples, the largest magnitude 6e+04 at hot; 2 beyond half of "
        "float16's range, the first hot\n"
    )
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [one["name"] for one in content["tensors"]] == ["x", "hot", "y"]
    assert content["tensors"][1]["sample"] == 2, "the row with -3 in it"
    assert content["beyond_half"] == ["hot", "y"]
    assert content["beyond"] == []
    assert {key: content[key] for key in ("variant", "step", "mode", "device", "gpu")} == {
        "variant": "onnx_fp32",
        "step": "range",
        "mode": "local",
        "device": "cpu",
        "gpu": None,
    }
    assert content["limit"] == 65504
    assert content["samples"] == 6
    assert content["unseen"] == []
    assert len(content["inputs"]) == 3


def test_what_is_not_finite_is_null(case) -> None:
    result, out = case(3e38)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["tensors"][1]["largest"] is None
    assert content["beyond"] == ["hot", "y"]
    assert "not finite at hot" in result.output


def test_a_model_with_its_weights_in_a_second_file(case) -> None:
    options = {
        "save_as_external_data": True,
        "location": "model.onnx.data",
        "size_threshold": 0,
    }
    result, out = case(20000.0, **options)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text(encoding="utf-8"))["beyond_half"] == ["hot", "y"]
    assert sorted(one.name for one in Path("models").iterdir()) == [
        "model.onnx",
        "model.onnx.data",
    ]


def test_all_tensors_of_an_exported_model_are_seen(case) -> None:
    """Weights are no tensors of the graph."""
    _, out = case(1.0)
    names = {one["name"] for one in json.loads(out.read_text(encoding="utf-8"))["tensors"]}
    stored = {
        numpy_helper.to_array(one).size for one in onnx.load("models/model.onnx").graph.initializer
    }
    assert stored == {1, 2}
    assert not names & {"k", "column"}
