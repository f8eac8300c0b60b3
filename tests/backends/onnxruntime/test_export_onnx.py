"""The export: real torch modules through the command, and what is refused."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import helper

from scripts.backends.onnxruntime import convert_fp32 as export_onnx
from scripts.case.read_case import read_case
from scripts.data import read_samples
from scripts.families.torch.model import load_model
from scripts.graphs import save as graphs_save
from scripts.graphs.fp16_passes import graphs

ROOT = Path(__file__).resolve().parents[3]
IMPORTS = "import torch\nfrom torch import nn\n\n\n"

CONVOLUTION = """
class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(3, 1)

    def forward(self, image):
        return self.last(torch.relu(self.norm(self.conv(image))).mean((2, 3)))
"""
TOKENS = """
class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.norm = nn.LayerNorm(4)
        self.last = nn.Linear(4 + 2, 1)

    def forward(self, ids, extra):
        words = self.norm(self.embedding(ids)).mean(1)
        return self.last(torch.cat([words, extra], 1)).squeeze(-1)
"""
BYTES = """
class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, image):
        return self.last(image.permute(0, 3, 1, 2).float().div(255).mean((2, 3)))
"""
BRANCHES = """
class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        def plus(x):
            return self.last(x) + 1.5

        def minus(x):
            return self.last(x) * 2

        return torch.cond(x.sum() > 0, plus, minus, (x,))
"""
LINEAR = """
class build(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        {body}
"""
FIXED_AT_EIGHT = LINEAR.format(body="return self.last(x.reshape(8, 4))")
FIXED_AT_THREE = LINEAR.format(body="return self.last(x) + torch.zeros(3, 1)")
IF_ON_A_VALUE = LINEAR.format(
    body="return self.last(x) if x.sum() > 0 else -self.last(x)",
)


def toml(inputs, head="logit", max_batch=4):
    lines = ["[model]", 'factory = "model.py:build"', 'weights = "weights.pth"', f'head = "{head}"']
    lines += [f"max_batch = {max_batch}"]
    for name, array in inputs.items():
        lines += ["[[inputs]]", f'name = "{name}"', f"shape = {list(array.shape[1:])}"]
        lines += [f'dtype = "{array.dtype}"', f'file = "{name}.npy"']
    return "\n".join([*lines, "[labels]", 'file = "labels.npy"', ""])


@pytest.fixture
def make_case(tmp_path, monkeypatch):
    """Writes data/toy with this model and data; gives the path of case.toml."""
    monkeypatch.chdir(tmp_path)

    def make(source, inputs, head="logit", max_batch=4):
        folder = tmp_path / "data/toy"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(IMPORTS + source.strip() + "\n", encoding="utf-8")
        for name, array in inputs.items():
            np.save(folder / f"{name}.npy", array)
        np.save(folder / "labels.npy", np.arange(len(next(iter(inputs.values())))) % 2)
        (folder / "case.toml").write_text(toml(inputs, head, max_batch), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("toy_model", folder / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        torch.save(module.build().state_dict(), folder / "weights.pth")
        path = Path("data/toy/case.toml")
        result = CliRunner().invoke(
            read_samples.main, [str(path), "--out", "results/toy/samples.json"]
        )
        assert result.exit_code == 0, result.output
        return path

    return make


OUT = Path("model_repository/toy_onnx_fp32/1/model.onnx")
ARGUMENTS = ["data/toy/case.toml", "--samples", "results/toy/samples.json", "--out", str(OUT)]


def export():
    return CliRunner().invoke(export_onnx.main, ARGUMENTS)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def described(values):
    return [
        (
            one.name,
            helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type).name,
            [axis.dim_value or "dynamic" for axis in one.type.tensor_type.shape.dim],
        )
        for one in values
    ]


def check_same_numbers(case_toml, inputs):
    """The ONNX file against the PyTorch model at batch 1, an odd batch and all there is."""
    model = load_model(read_case(case_toml))
    session = onnxruntime.InferenceSession(str(OUT), providers=["CPUExecutionProvider"])
    for size in (1, 5, len(next(iter(inputs.values())))):
        rows = {name: array[:size] for name, array in inputs.items()}
        with torch.inference_mode():
            wanted = model(*(torch.from_numpy(array) for array in rows.values())).numpy()
        (found,) = session.run(None, rows)
        assert (found.shape, found.dtype) == (wanted.shape, np.float32)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def check_tidy(folder):
    """One file, opset 18, IR 10, checked in full, and nothing of this machine inside."""
    assert [path.name for path in OUT.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(OUT)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert model.ir_version == 10
    for graph in graphs(model.graph):
        for holder in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
            assert not holder.metadata_props
            assert not holder.doc_string
    content = OUT.read_bytes()
    assert str(folder).encode() not in content
    assert b"site-packages" not in content
    return model


def test_a_convolution(make_case, tmp_path):
    inputs = {"image": normal(9, 1, 6, 6)}
    case_toml = make_case(CONVOLUTION, inputs)
    result = export()
    assert result.exit_code == 0, result.output
    model = check_tidy(tmp_path)
    assert result.output == (
        f"onnx_fp32: opset 18, {len(model.graph.node)} nodes, "
        f"{OUT.stat().st_size / 1e6:.2g} MB, runs at batch 1, 3, 4\n"
    )
    assert described(model.graph.input) == [("image", "float32", ["dynamic", 1, 6, 6])]
    assert described(model.graph.output) == [("output", "float32", ["dynamic", 1])]
    check_same_numbers(case_toml, inputs)


def test_two_inputs_of_two_types_and_an_output_of_one_axis(make_case, tmp_path):
    ids = np.random.default_rng(1).integers(0, 10, (8, 5))
    inputs = {"extra": normal(8, 2), "ids": ids}  # not in the order of forward()
    case_toml = make_case(TOKENS, inputs)
    result = export()
    assert result.exit_code == 0, result.output
    model = check_tidy(tmp_path)
    assert described(model.graph.input) == [
        ("extra", "float32", ["dynamic", 2]),
        ("ids", "int64", ["dynamic", 5]),
    ]
    assert described(model.graph.output) == [("output", "float32", ["dynamic"])]
    check_same_numbers(case_toml, inputs)


def test_bytes_in_and_two_logits_out(make_case, tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (7, 4, 4, 3)).astype(np.uint8)
    case_toml = make_case(BYTES, {"image": images}, head="two_logits")
    result = export()
    assert result.exit_code == 0, result.output
    model = check_tidy(tmp_path)
    assert described(model.graph.input) == [("image", "uint8", ["dynamic", 4, 4, 3])]
    assert described(model.graph.output) == [("output", "float32", ["dynamic", 2])]
    check_same_numbers(case_toml, {"image": images})


def test_a_largest_batch_of_one(make_case, tmp_path):
    inputs = {"x": normal(6, 4)}
    case_toml = make_case(LINEAR.format(body="return self.last(x)"), inputs, max_batch=1)
    result = export()
    assert result.exit_code == 0, result.output
    assert result.output.endswith("runs at batch 1\n")
    assert described(check_tidy(tmp_path).graph.input) == [("x", "float32", ["dynamic", 4])]
    check_same_numbers(case_toml, inputs)


def test_branches_leave_nothing_of_this_machine_in_their_subgraphs(make_case, tmp_path):
    inputs = {"x": normal(6, 4)}
    case_toml = make_case(BRANCHES, inputs)
    result = export()
    assert result.exit_code == 0, result.output
    model = check_tidy(tmp_path)
    assert "If" in [node.op_type for node in model.graph.node]
    check_same_numbers(case_toml, inputs)


def test_the_same_model_gives_the_same_bytes(make_case):
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    assert export().exit_code == 0
    first = OUT.read_bytes()
    assert export().exit_code == 0
    assert OUT.read_bytes() == first


REFUSED = {
    "batch fixed at 8": (FIXED_AT_EIGHT, ["8", "x.shape[0]"]),
    "batch fixed at 3": (FIXED_AT_THREE, ["batch", "x.shape[0]"]),
    "if on a value": (IF_ON_A_VALUE, ["data-dependent", "torch.where"]),
}


@pytest.mark.parametrize(("source", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_exported_is_refused_in_words_that_help(make_case, source, words):
    make_case(source, {"x": normal(6, 4)})
    OUT.parent.mkdir(parents=True)
    OUT.write_bytes(b"the earlier model")
    result = export()
    assert result.exit_code == 1
    assert [line[:7] for line in result.output.splitlines()].count("Error: ") == 1
    assert "Traceback" not in result.output
    assert ".tmp" not in result.output  # a file that the user never sees
    for word in words:
        assert word in result.output
    assert OUT.read_bytes() == b"the earlier model"
    assert [path.name for path in OUT.parent.iterdir()] == ["model.onnx"]


def test_the_message_is_all_that_a_user_sees(make_case, tmp_path):
    """torch also writes graphs and notes of its own to the terminal."""
    make_case(IF_ON_A_VALUE, {"x": normal(6, 4)})
    command = [sys.executable, "-m", "scripts.backends.onnxruntime.convert_fp32", *ARGUMENTS]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: torch.onnx.export failed for data/toy/case.toml: ")
    assert len(done.stderr.splitlines()) <= 6


def small(batch, factor=1, columns=1):
    """y = x @ w as ONNX, with this first axis; all weights are `factor`."""
    node = helper.make_node("MatMul", ["x", "w"], ["output"], name="matmul")
    weights = onnx.numpy_helper.from_array(np.full((4, columns), factor, np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, size])
        for name, size in (("x", 4), ("output", columns))
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def save(model):
    case = read_case(Path("data/toy/case.toml"))
    export_onnx.save(model, OUT, case, {"x": normal(4, 4)})


def test_a_saved_model_was_checked_and_run(make_case):
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    save(small("n"))
    assert OUT.is_file()
    broken = small("n")
    broken.graph.node[0].input[1] = "nothing"
    before = OUT.read_bytes()
    with pytest.raises(click.ClickException, match="The ONNX checker refuses"):
        save(broken)
    with pytest.raises(click.ClickException) as caught:
        save(small(4))
    assert "batch" in caught.value.message
    assert OUT.read_bytes() == before
    assert [path.name for path in OUT.parent.iterdir()] == ["model.onnx"]


def test_another_shape_than_declared_is_refused(make_case):
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    renamed = small("n")
    renamed.graph.input[0].name = "z"
    renamed.graph.node[0].input[0] = "z"
    with pytest.raises(click.ClickException, match=r"The inputs of .* are .*'z'.*'x'.* is needed"):
        save(renamed)


def test_large_weights_go_to_a_second_file(make_case, monkeypatch):
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    monkeypatch.setattr(graphs_save, "ONE_FILE_BYTES", 2000)
    for factor in (1, 2):  # a second time over the first
        save(small("n", factor, columns=300))
        assert sorted(path.name for path in OUT.parent.iterdir()) == [
            "model.onnx",
            "model.onnx.data",
        ]
        assert OUT.with_name("model.onnx.data").stat().st_size < 2 * 4800
        session = onnxruntime.InferenceSession(str(OUT), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": np.ones((2, 4), np.float32)})
        assert (found == 4 * factor).all()


def test_a_refused_model_with_a_second_file_leaves_the_earlier_two(make_case, monkeypatch):
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    monkeypatch.setattr(graphs_save, "ONE_FILE_BYTES", 2000)
    save(small("n", columns=300))
    before = {path.name: path.read_bytes() for path in OUT.parent.iterdir()}
    with pytest.raises(click.ClickException):
        save(small(4, factor=2, columns=300))
    assert {path.name: path.read_bytes() for path in OUT.parent.iterdir()} == before


def test_a_model_in_one_file_leaves_no_second_one_behind(make_case, monkeypatch):
    """convert_fp16 takes a second file as a sign that the weights stand in it."""
    make_case(LINEAR.format(body="return self.last(x)"), {"x": normal(6, 4)})
    with monkeypatch.context() as patch:
        patch.setattr(graphs_save, "ONE_FILE_BYTES", 2000)
        save(small("n", columns=300))
    save(small("n"))
    assert [path.name for path in OUT.parent.iterdir()] == ["model.onnx"]
