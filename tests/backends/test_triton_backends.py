"""The Python-based backends, in a real tritonserver: the same answers as in process, and as strict as the native ones."""

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from scripts.triton import home as triton_home
from scripts.triton.server import Home, Server, running_server

pytestmark = pytest.mark.xdist_group("backends")  # what is set up once for all is set up once

TYPES = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64, "INT64": np.int64,
         "INT32": np.int32, "UINT8": np.uint8, "BOOL": np.bool_}  # fmt: skip
WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
ROWS = np.random.default_rng(5).normal(size=(8, 4)).astype(np.float32)
BATCHING = "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 300000 }"

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    out = tmp_path_factory.mktemp("home") / "triton" / "server.json"
    done = CliRunner().invoke(triton_home.main, ["--out", str(out)])
    assert done.exit_code == 0, done.output
    return triton_home.read_home(out)


# ---- models --------------------------------------------------------------------------------------
def config(
    folder: Path, backend: str, inputs: dict[str, str], outputs: dict[str, str], more: str = "",
    batch: int = 8, kind: str = "KIND_CPU",
) -> None:  # fmt: skip
    """config.pbtxt; a tensor is "FP32 [ 4 ]", with what else belongs to it behind."""
    text = f'name: "{folder.name}"\nbackend: "{backend}"\nmax_batch_size: {batch}\n'
    for word, listed in (("input", inputs), ("output", outputs)):
        for name, what in listed.items():
            data_type, _, dims = what.partition(" ")
            text += f'{word} [ {{ name: "{name}" data_type: TYPE_{data_type} dims: {dims} }} ]\n'
    text += f"instance_group [ {{ kind: {kind} count: 1 }} ]\n{more}\n"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(text)


def save_onnx(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Arrays
) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, stored)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def tensor(name: str, kind: str, shape: list[Any]) -> Any:
    from onnx import TensorProto, helper

    codes = {"FP32": "FLOAT", "FP16": "FLOAT16", "FP64": "DOUBLE"}
    return helper.make_tensor_value_info(
        name, TensorProto.DataType.Value(codes.get(kind, kind)), shape
    )


def linear(folder: Path, first: Any = "n") -> Path:
    """tanh(x @ WEIGHT): (n, 4) -> (n, 3)."""
    from onnx import helper

    return save_onnx(
        folder,
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])],
        [tensor("x", "FP32", [first, 4])],
        [tensor("y", "FP32", [first, 3])],
        {"w": WEIGHT},
    )


def save_torch(folder: Path, module: Any, *examples: Any) -> Path:
    import torch

    path = folder / "1" / "model.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = torch.jit.trace(module, examples) if examples else torch.jit.script(module)
    torch.jit.save(made, str(path))
    return path


def net() -> Any:
    import torch

    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()


def onnx_here(path: Path, feed: Arrays) -> list[NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


DOUBLE = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            y = pb_utils.get_input_tensor_by_name(request, "y").as_numpy()
            two = pb_utils.Tensor("two", (2 * y.astype(np.float64)).T.copy().T)
            responses.append(pb_utils.InferenceResponse([two, pb_utils.Tensor("yes", y > 0)]))
        return responses
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that are right, of every kind."""
    import torch
    from onnx import helper

    root = tmp_path_factory.mktemp("repository")
    x, y = {"x": "FP32 [ 4 ]"}, {"y": "FP32 [ 3 ]"}
    warm = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }'
    warmup = f'model_warmup {{ name: "eight" batch_size: 8 {warm} }}'
    linear(root / "linear")
    config(root / "linear", "onnxruntime", x, y, warmup)
    linear(root / "batched")
    config(root / "batched", "onnxruntime", x, y, BATCHING)
    linear(root / "whole", first=2)
    config(root / "whole", "onnxruntime", {"x": "FP32 [ 2, 4 ]"}, {"y": "FP32 [ 2, 3 ]"}, batch=0)

    one = "FP32 [ 1 ] reshape { shape: [ ] }"
    node = helper.make_node("Neg", ["x"], ["y"])
    save_onnx(root / "flat", [node], [tensor("x", "FP32", ["n"])], [tensor("y", "FP32", ["n"])], {})
    config(root / "flat", "onnxruntime", {"x": one}, {"y": one})

    names = [f"x_{kind}" for kind in TYPES]
    save_onnx(
        root / "types",
        [helper.make_node("Identity", [name], [name.replace("x", "y", 1)]) for name in names],
        [tensor(f"x_{kind}", kind, ["n", 3]) for kind in TYPES],
        [tensor(f"y_{kind}", kind, ["n", 3]) for kind in TYPES],
        {},
    )
    config(
        root / "types",
        "onnxruntime",
        {f"x_{kind}": f"{kind} [ 3 ]" for kind in TYPES},
        {f"y_{kind}": f"{kind} [ 3 ]" for kind in TYPES},
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n'
        'parameters { key: "of no backend" value { string_value: "" } }\n'
        "optimization { graph { level: 1 } }",
    )

    save_torch(root / "net", net(), torch.zeros(3, 4))
    config(root / "net", "pytorch", {"input": "FP32 [ 4 ]"}, {"output__0": "FP32 [ 3 ]"}, BATCHING)

    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a - b.to(a.dtype), b

    save_torch(root / "two", Two().eval(), torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int64))
    config(
        root / "two",
        "pytorch",
        {"INPUT__1": "INT64 [ 4 ]", "INPUT__0": "FP32 [ 4 ]"},
        {"SECOND__1": "INT64 [ 4 ]", "FIRST__0": "FP32 [ 4 ]"},
        'parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }\n'
        'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }',
    )
    # TorchScript tells neither types nor shapes: these load, here as with the native backend.
    save_torch(root / "typed", net(), torch.zeros(3, 4))
    config(root / "typed", "pytorch", {"input": "FP32 [ 4 ]"}, {"output__0": "FP64 [ 3 ]"})
    save_torch(root / "shaped", net(), torch.zeros(3, 4))
    config(root / "shaped", "pytorch", {"input": "FP32 [ 5 ]"}, {"output__0": "FP32 [ 3 ]"})
    save_torch(root / "wide", net(), torch.zeros(3, 4))
    config(root / "wide", "pytorch", {"input": "FP32 [ 4 ]"}, {"output__0": "FP32 [ 2 ]"})
    save_torch(root / "fewer", net(), torch.zeros(3, 4))
    config(root / "fewer", "pytorch", {"input": "FP32 [ 4 ]"}, {"output__1": "FP32 [ 3 ]"})
    node = helper.make_node("Compress", ["x", "first"], ["y"], axis=0)
    ends = [tensor("x", "FP32", ["n", 4])], [tensor("y", "FP32", ["m", 4])]
    save_onnx(root / "first", [node], *ends, {"first": np.array([True])})
    config(root / "first", "onnxruntime", x, {"y": "FP32 [ 4 ]"})

    config(root / "double", "python", y, {"two": "FP64 [ 3 ]", "yes": "BOOL [ 3 ]"})
    (root / "double" / "1" / "model.py").write_text(DOUBLE)
    config(root / "both", "", x, {"two": "FP64 [ 3 ]", "yes": "BOOL [ 3 ]"})
    steps = """\
ensemble_scheduling {
  step { model_name: "linear" model_version: -1
         input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }
  step { model_name: "double" model_version: -1 input_map { key: "y" value: "y" }
         output_map { key: "two" value: "two" } output_map { key: "yes" value: "yes" } }
}"""
    path = root / "both" / "config.pbtxt"
    kept = [line for line in path.read_text().splitlines() if "instance_group" not in line]
    path.write_text("\n".join(kept).replace('backend: ""', 'platform: "ensemble"') + f"\n{steps}\n")
    return root


@pytest.fixture(scope="session")
def server(
    repository: Path, home: Home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server with all of them; loading an ensemble loads its models."""
    models = sorted(path.name for path in repository.iterdir() if path.name not in ("double",))
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running_server(repository, models, log, home=home) as running:
        yield running


# ---- requests ------------------------------------------------------------------------------------
def ask(
    server: Server, protocol: str, model: str, feed: Arrays, wanted: list[str] | None = None
) -> Arrays:
    """All outputs of one request, by name."""
    import tritonclient.grpc
    import tritonclient.http

    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[protocol]
    with module.InferenceServerClient(getattr(server, protocol)) as client:
        inputs = []
        for name, array in feed.items():
            kind = next(kind for kind, dtype in TYPES.items() if dtype == array.dtype)
            inputs.append(module.InferInput(name, list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        outputs = [module.InferRequestedOutput(name) for name in wanted or []]
        result = client.infer(model, inputs, outputs=outputs or None)
        told = result.get_response()
        listed = told["outputs"] if protocol == "http" else told.outputs
        names = [one["name"] if protocol == "http" else one.name for one in listed]
        return {name: result.as_numpy(name) for name in names}


def statistics(server: Server, model: str) -> dict[str, Any]:
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(server.http) as client:
        (found,) = client.get_inference_statistics(model)["model_stats"]
        return dict(found)


both = pytest.mark.parametrize("protocol", ["http", "grpc"])


@both
@pytest.mark.parametrize("size", [1, 7, 8])
def test_onnx_answers_as_in_process(
    server: Server, repository: Path, protocol: str, size: int
) -> None:
    expected = onnx_here(repository / "linear" / "1" / "model.onnx", {"x": ROWS[:size]})[0]
    found = ask(server, protocol, "linear", {"x": ROWS[:size]})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@both
@pytest.mark.parametrize("size", [1, 7, 8])
def test_torchscript_answers_as_in_process(
    server: Server, repository: Path, protocol: str, size: int
) -> None:
    import torch

    with torch.inference_mode():
        module = torch.jit.load(str(repository / "net" / "1" / "model.pt"))
        expected = module(torch.from_numpy(ROWS[:size].copy())).numpy()
    found = ask(server, protocol, "net", {"input": ROWS[:size]})["output__0"]
    np.testing.assert_array_equal(found, expected)


@both
def test_every_type_arrives_and_comes_back(server: Server, protocol: str) -> None:
    numbers = np.array([[0, 1, 200], [7, 0, 3], [100, 2, 1], [5, 6, 0]])
    feed = {f"x_{kind}": numbers.astype(dtype) for kind, dtype in TYPES.items()}
    feed["x_INT64"][0, 0] = -(2**62)
    feed["x_FP16"][0, 0] = np.float16(65504)
    found = ask(server, protocol, "types", feed)
    assert len(found) == len(TYPES)
    for kind, dtype in TYPES.items():
        assert found[f"y_{kind}"].dtype == dtype
        np.testing.assert_array_equal(found[f"y_{kind}"], feed[f"x_{kind}"])


@both
def test_one_number_per_sample_is_reshaped(server: Server, protocol: str) -> None:
    column = np.arange(5, dtype=np.float32)[:, None]
    found = ask(server, protocol, "flat", {"x": column})["y"]
    np.testing.assert_array_equal(found, -column)


@both
def test_a_model_without_batches(server: Server, repository: Path, protocol: str) -> None:
    expected = onnx_here(repository / "whole" / "1" / "model.onnx", {"x": ROWS[:2]})[0]
    found = ask(server, protocol, "whole", {"x": ROWS[:2]})["y"]
    np.testing.assert_array_equal(found, expected)


@both
def test_torchscript_tensors_go_by_the_index_in_their_names(server: Server, protocol: str) -> None:
    whole = np.arange(12, dtype=np.int64).reshape(3, 4)
    found = ask(server, protocol, "two", {"INPUT__1": whole, "INPUT__0": ROWS[:3]})
    np.testing.assert_array_equal(found["FIRST__0"], ROWS[:3] - whole.astype(np.float32))
    np.testing.assert_array_equal(found["SECOND__1"], whole)
    only = ask(server, protocol, "two", {"INPUT__1": whole, "INPUT__0": ROWS[:3]}, ["FIRST__0"])
    assert list(only) == ["FIRST__0"]


@both
def test_an_ensemble_with_a_python_model(server: Server, repository: Path, protocol: str) -> None:
    """The plain Python backend goes by NumPy 2, too, also with an array that is not contiguous."""
    y = onnx_here(repository / "linear" / "1" / "model.onnx", {"x": ROWS})[0]
    found = ask(server, protocol, "both", {"x": ROWS})
    np.testing.assert_array_equal(found["two"], 2 * y.astype(np.float64))
    np.testing.assert_array_equal(found["yes"], y > 0)


@pytest.mark.parametrize(
    ("model", "given", "output"), [("batched", "x", "y"), ("net", "input", "output__0")]
)
def test_dynamic_batching_forms_batches_and_gives_each_request_its_own_answer(
    server: Server, repository: Path, model: str, given: str, output: str
) -> None:
    before = statistics(server, model)
    sizes = [1, 2, 1, 1, 3]  # together the preferred 8
    starts = np.cumsum([0, *sizes])
    parts = [ROWS[at : at + size] for at, size in zip(starts, sizes, strict=False)]
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        answers = [pool.submit(ask, server, "grpc", model, {given: part}) for part in parts]
        found = [answer.result()[output] for answer in answers]
    after = statistics(server, model)
    for part, rows in zip(parts, found, strict=True):
        alone = ask(server, "grpc", model, {given: part})[output]
        np.testing.assert_allclose(rows, alone, rtol=1e-6, atol=1e-7)
    assert len({rows.tobytes() for rows in found}) == len(parts)  # or a mix-up could not be seen
    inferences = int(after["inference_count"]) - int(before.get("inference_count", 0))
    executions = int(after["execution_count"]) - int(before.get("execution_count", 0))
    assert inferences == 8
    assert executions < len(parts), "no batch was formed"
    assert max(int(one["batch_size"]) for one in after["batch_stats"]) > 3


@pytest.mark.parametrize(
    ("model", "feed", "words"),
    [
        ("linear", {"x": ROWS[:, :3]}, "Expected [-1,4]"),
        ("linear", {"x": ROWS.astype(np.float64)}, "expects 'FP32'"),
        ("linear", {"x": np.zeros((9, 4), np.float32)}, "batch-size must be <= 8"),
        ("linear", {"z": ROWS}, "'z'"),
        ("typed", {"input": ROWS}, "configuration expects datatype TYPE_FP64 for output 'output__0', model provides TYPE_FP32"),
        ("shaped", {"input": np.zeros((2, 5), np.float32)}, "PyTorch execute failure"),
        ("wide", {"input": ROWS}, "gives output 'output__0' of shape [3]"),
        ("fewer", {"input": ROWS}, "This model has 1 outputs"),
        ("first", {"x": ROWS}, "expected batch size of 8 in model output, got 1"),
    ],
)  # fmt: skip
@both
def test_a_wrong_request_or_answer_is_an_error_and_the_next_is_right(
    server: Server, protocol: str, model: str, feed: Arrays, words: str
) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        ask(server, protocol, model, feed)
    assert words in str(caught.value)
    server.check()
    assert ask(server, protocol, "linear", {"x": ROWS[:1]})["y"].shape == (1, 3)


# ---- wrong configurations ------------------------------------------------------------------------
def refused(tmp_path: Path, home: Home, *words: str, model: str = "m") -> str:
    """The server does not start, and says why, in a few words without time stamps or tracebacks."""
    with (
        pytest.raises(click.ClickException) as caught,
        running_server(tmp_path / "r", [model], tmp_path / "server.log", home=home),
    ):
        pass
    text = caught.value.message
    for word in ("tritonserver ended (code 1) while it loaded", *words):
        assert word in text, text
    for slip in ("model.py(", "\n", "At:", "server.cc", "UNAVAILABLE", "NVML"):
        assert slip not in text, text
    assert len(text) < 900, text
    return text


ACCELERATOR = 'optimization {{ execution_accelerators {{ {0}_execution_accelerator [ {{ name: "{1}" }} ] }} }}'
X, Y = {"x": "FP32 [ 4 ]"}, {"y": "FP32 [ 3 ]"}


def text_parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


@pytest.mark.parametrize(
    ("first", "inputs", "outputs", "options", "words"),
    [
        ("n", {"x": "FP32 [ 8, 4 ]"}, Y, {}, "the model expects 2 dimensions (shape [-1,4]) but the model configuration specifies 3 dimensions"),
        ("n", {"x": "FP32 [ -1 ]"}, Y, {}, "making complete shape [-1,-1])"),
        ("n", X, {"y": "FP32 [ -1 ]"}, {}, "making complete shape [-1,-1])"),
        ("n", {"x": "INT64 [ 4 ]"}, Y, {}, "configuration expects datatype TYPE_INT64 for input 'x', model provides TYPE_FP32"),
        ("n", X, {"y": "FP16 [ 3 ]"}, {}, "configuration expects datatype TYPE_FP16 for output 'y', model provides TYPE_FP32"),
        ("n", {"z": "FP32 [ 4 ]"}, Y, {}, "unexpected inference input 'z', allowed inputs are: x"),
        ("n", X, {"z": "FP32 [ 3 ]"}, {}, "unexpected inference output 'z', allowed outputs are: y"),
        ("n", X | {"z": "FP32 [ 4 ]"}, Y, {}, "configuration expects 2 inputs, model provides 1"),
        (8, X, Y, {}, "the first dimension must be -1; but shape expected by the model is [8,4]"),
        ("n", {"x": "FP32 [ 2, 4 ]"}, {"y": "FP32 [ 2, 3 ]"}, {"batch": 0}, "the model expects 2 dimensions (shape [-1,3]) but the model configuration specifies 2 dimensions (shape [2,3])"),
        ("n", X, Y, {"more": ACCELERATOR.format("gpu", "fast")}, "unknown Execution Accelerator 'fast' is requested"),
        ("n", X, Y, {"more": ACCELERATOR.format("cpu", "cuda")}, "unknown Execution Accelerator 'cuda' is requested"),
        ("n", X, Y, {"more": ACCELERATOR.format("cpu", "openvino")}, "OpenVINOExecutionProvider is asked for"),
        ("n", X, Y, {"more": text_parameter("intra_op_thread_count", "many")}, "failed to convert 'many' to integral number"),
        ("n", X, Y, {"more": text_parameter("execution_mode", "7")}, "execution_mode are 0 or 1 but got 7"),
        ("n", X, Y, {"more": text_parameter("enable_mem_arena", "perhaps")}, "failed to convert 'perhaps' to boolean"),
        ("n", X, Y, {"more": "sequence_batching { }"}, "sequence_batching is not served by the local mode's backends"),
        ("n", {"x": "STRING [ 4 ]"}, Y, {}, "unsupported datatype TYPE_STRING for input 'x'"),
        ("n", X, Y, {"kind": "KIND_GPU"}, "has kind KIND_GPU but no GPUs are available"),
        ("n", X, Y, {"more": "no_such_field: 1"}, "no_such_field"),
        ("n", X, Y, {"more": 'platform: "pytorch_libtorch"'}, "unexpected 'platform' and 'backend' pair"),
    ],
)  # fmt: skip
def test_a_wrong_onnx_configuration_is_refused(
    tmp_path: Path, home: Home, first: Any, inputs: dict[str, str], outputs: dict[str, str],
    options: dict[str, Any], words: str,
) -> None:  # fmt: skip
    linear(tmp_path / "r" / "m", first)
    config(tmp_path / "r" / "m", "onnxruntime", inputs, outputs, **options)
    refused(tmp_path, home, words)


def test_an_output_that_is_dynamic_must_be_called_so(tmp_path: Path, home: Home) -> None:
    """As the native backend has it: exact for outputs, not for inputs."""
    from onnx import helper

    node = helper.make_node("Neg", ["x"], ["y"])
    shape = ["n", "k"]
    ends = [tensor("x", "FP32", shape)], [tensor("y", "FP32", shape)]
    save_onnx(tmp_path / "r" / "m", [node], *ends, {})
    config(tmp_path / "r" / "m", "onnxruntime", X, {"y": "FP32 [ 4 ]"})
    refused(tmp_path, home, "model 'm', tensor 'y'", "(shape [-1,-1])", "complete shape [-1,4])")


def test_a_name_that_is_not_the_folders(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "r" / "m"
    linear(folder)
    config(folder, "onnxruntime", X, Y)
    path = folder / "config.pbtxt"
    path.write_text(path.read_text().replace('name: "m"', 'name: "other"'))
    refused(tmp_path, home, "unexpected directory name 'm' for model 'other'")


def test_files_that_are_missing_or_no_models(tmp_path: Path, home: Home) -> None:
    config(tmp_path / "r" / "m", "onnxruntime", X, Y)
    refused(tmp_path, home, "unable to find", "1/model.onnx")
    (tmp_path / "r" / "m" / "1" / "model.onnx").write_bytes(b"no model")
    refused(tmp_path, home, "onnx runtime error: ")
    config(tmp_path / "r" / "m", "pytorch", X, {"y__0": "FP32 [ 3 ]"})
    (tmp_path / "r" / "m" / "1" / "model.pt").write_bytes(b"no model")
    refused(tmp_path, home, "failed to load model 'm'")


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "words"),
    [
        ({"z": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {}, "input 'z' does not follow <name>__<index> naming convention, and forward() takes input"),
        ({"z__1": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {}, "input 'z__1' does not follow"),
        ({"input": "FP32 [ 4 ]"}, {"y": "FP32 [ 3 ]"}, {}, "output 'y' does not follow <name>__<index> naming convention"),
        ({"input": "FP32 [ 4 ]", "z": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {}, "configuration expects 2 inputs, model provides 1"),
        ({"input": "UINT32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {}, "unsupported datatype TYPE_UINT32 for input 'input'"),
        ({"input": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {"more": text_parameter("INFERENCE_MODE", "perhaps")}, "failed to convert 'perhaps' to boolean"),
        ({"input": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 3 ]"}, {"kind": "KIND_GPU"}, "has kind KIND_GPU but no GPUs are available"),
    ],
)  # fmt: skip
def test_a_wrong_torchscript_configuration_is_refused(
    tmp_path: Path, home: Home, inputs: dict[str, str], outputs: dict[str, str],
    options: dict[str, Any], words: str,
) -> None:  # fmt: skip
    import torch

    save_torch(tmp_path / "r" / "m", net(), torch.zeros(3, 4))
    config(tmp_path / "r" / "m", "pytorch", inputs, outputs, **options)
    refused(tmp_path, home, words)


def test_torchscript_that_would_run_in_training_mode(tmp_path: Path, home: Home) -> None:
    import torch

    save_torch(tmp_path / "r" / "m", torch.nn.Sequential(torch.nn.Dropout(0.5)))
    config(tmp_path / "r" / "m", "pytorch", {"input": "FP32 [ 4 ]"}, {"y__0": "FP32 [ 4 ]"})
    refused(tmp_path, home, "saved in training mode")


def test_the_servers_own_description_is_the_configuration(server: Server) -> None:
    """Nothing was completed: what the file leaves out is not there."""
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(server.http) as client:
        found = client.get_model_config("linear")
    assert "dynamic_batching" not in found
    assert found["max_batch_size"] == 8
    assert json.loads(json.dumps(found["input"]))[0]["dims"] == [4]
