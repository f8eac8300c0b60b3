"""config.pbtxt, parsed with Triton's own protobuf and compared with the ONNX file."""

import importlib
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from scripts.case.keys import DTYPES
from scripts.graphs.ends import End, Ends
from scripts.triton.model_config import to_text
from scripts.triton.write_config import (
    QUEUE_DELAY_MICROSECONDS,
    TYPES,
    get_comments,
    get_config,
    main,
)
from scripts.variants import BY_NAME

TRITON = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.BOOL: "TYPE_BOOL",
}
MODELS = {
    "image to (N, 1)": (
        [("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        ("output", TensorProto.FLOAT, ["batch", 1]),
    ),
    "bytes to (N, 2)": (
        [("pixels", TensorProto.UINT8, ["n", 8, 8, 3])],
        ("output", TensorProto.FLOAT, ["n", 2]),
    ),
    "ids and mask to (N,)": (
        [("ids", TensorProto.INT64, ["n", 16]), ("mask", TensorProto.BOOL, ["n", 16])],
        ("output", TensorProto.FLOAT, ["n"]),
    ),
    "int32 and float16 to (N, 5)": (
        [("steps", TensorProto.INT32, ["n", 2]), ("half", TensorProto.FLOAT16, ["n", 3])],
        ("output", TensorProto.FLOAT, ["n", 5]),
    ),
    "a number per sample to (N,)": (
        [("age", TensorProto.FLOAT, ["n"])],
        ("output", TensorProto.FLOAT, ["n"]),
    ),
    "first axis without a name": (
        [("x", TensorProto.FLOAT, [None, 4])],
        ("output", TensorProto.FLOAT, [None, 1]),
    ),
}
CASE = """
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = {max_batch}
[[inputs]]
name = "x"
shape = [4]
dtype = "float32"
file = "x.npy"
[labels]
file = "labels.npy"
"""


def write_model(path, inputs, output):
    """An ONNX file with these ends; what lies between them does not matter here."""
    ends = [helper.make_tensor_value_info(*one) for one in (*inputs, output)]
    node = helper.make_node("Custom", [one[0] for one in inputs], [output[0]], domain="test")
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:-1], ends[-1:])), path)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Runs the command on a model; gives its result and where config.pbtxt belongs."""
    monkeypatch.chdir(tmp_path)

    def command(inputs, output, gpu="no", max_batch=32, variant="onnx_fp32"):
        case = Path("data/toy/case.toml")
        case.parent.mkdir(parents=True, exist_ok=True)
        case.write_text(CASE.format(max_batch=max_batch), encoding="utf-8")
        folder = Path("model_repository/toy_onnx_fp32")
        write_model(folder / "1/model.onnx", inputs, output)
        arguments = [str(case), "--variant", variant, "--gpu", gpu]
        arguments += ["--model", str(folder / "1/model.onnx")]
        arguments += ["--out", str(folder / "config.pbtxt")]
        return CliRunner().invoke(main, arguments), folder / "config.pbtxt"

    return command


def parse(path):
    return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())


def per_sample(tensor):
    """The shape of one sample that Triton passes on: `reshape` where it is there, else `dims`."""
    return list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)


def type_name(tensor):
    return type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[
        tensor.data_type
    ].name  # fmt: skip


@pytest.mark.parametrize(("inputs", "output"), MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("gpu", ["no", "yes"])
def test_the_config_says_what_the_onnx_file_says(write, inputs, output, gpu):
    result, path = write(inputs, output, gpu)
    assert result.exit_code == 0, result.output
    assert result.output == "toy_onnx_fp32: config.pbtxt for onnxruntime, batches up to 32\n"
    config = parse(path)
    assert (config.name, config.backend, config.platform) == (path.parent.name, "onnxruntime", "")
    assert config.max_batch_size == 32
    for declared, wanted in zip((*config.input, *config.output), (*inputs, output), strict=True):
        name, kind, shape = wanted
        assert declared.name == name
        assert type_name(declared) == TRITON[kind]
        assert per_sample(declared) == shape[1:]
        assert list(declared.dims)  # Triton refuses empty dims
    assert list(config.dynamic_batching.preferred_batch_size) == [32]
    assert config.dynamic_batching.max_queue_delay_microseconds == QUEUE_DELAY_MICROSECONDS


@pytest.mark.parametrize("max_batch", [1, 7, 64])
def test_the_largest_batch_is_that_of_the_case(write, max_batch):
    result, path = write(*MODELS["image to (N, 1)"], max_batch=max_batch)
    assert result.exit_code == 0, result.output
    config = parse(path)
    assert config.max_batch_size == max_batch
    assert max(config.dynamic_batching.preferred_batch_size) <= max_batch


def test_one_instance_on_the_cpu_and_no_accelerator(write):
    _, path = write(*MODELS["image to (N, 1)"], gpu="no")
    config = parse(path)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_CPU, 1)
    assert not config.HasField("optimization")
    assert not config.parameters


def test_on_a_gpu_the_algorithm_is_pinned_and_tf32_off(write):
    _, path = write(*MODELS["image to (N, 1)"], gpu="yes")
    config = parse(path)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_GPU, 1)
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"  # HEURISTIC
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert dict(accelerator.parameters) == {"use_tf32": "0"}


def test_a_fixed_batch_is_refused(write):
    result, path = write([("x", TensorProto.FLOAT, [8, 4])], ("output", TensorProto.FLOAT, [8, 1]))
    assert result.exit_code == 1
    assert "the first axis of 'x' is fixed at 8" in result.output
    assert "Traceback" not in result.output
    assert not path.exists()


def test_a_fixed_batch_of_the_output_is_refused(write):
    result, path = write(
        [("x", TensorProto.FLOAT, ["n", 4])], ("output", TensorProto.FLOAT, [8, 1])
    )
    assert result.exit_code == 1
    assert "the first axis of 'output' is fixed at 8" in result.output
    assert not path.exists()


def test_another_axis_without_a_number_is_refused(write):
    result, path = write(
        [("x", TensorProto.FLOAT, ["n", "length"])], ("output", TensorProto.FLOAT, ["n", 1])
    )
    assert result.exit_code == 1
    assert "the shape of 'x' is known only as ['n', 'length']" in result.output
    assert not path.exists()


def test_a_type_without_a_place_is_refused_by_name(write):
    result, path = write(
        [("x", TensorProto.FLOAT, ["n", 4])], ("scores", TensorProto.DOUBLE, ["n", 1])
    )
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback instead of a sentence"
    assert "'scores'" in result.output
    assert "DOUBLE" in result.output.upper()
    assert not path.exists()


def test_an_output_without_a_batch_is_refused_by_name(write):
    result, path = write([("x", TensorProto.FLOAT, ["n", 4])], ("total", TensorProto.FLOAT, []))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback instead of a sentence"
    assert "'total'" in result.output
    assert not path.exists()


def test_a_refused_config_leaves_the_earlier_one(write):
    _, path = write(*MODELS["image to (N, 1)"])
    before = path.read_bytes()
    write([("x", TensorProto.FLOAT, [8, 4])], ("output", TensorProto.FLOAT, [8, 1]))
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["1", "config.pbtxt"]


def test_weights_in_a_second_file_are_not_read(write, tmp_path):
    """A 2 GB file of weights has nothing to say about shapes."""
    result, path = write(*MODELS["image to (N, 1)"])
    model = onnx.load(path.parent / "1/model.onnx")
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="missing.data")
    (path.parent / "1/model.onnx").write_bytes(model.SerializeToString())
    arguments = ["data/toy/case.toml", "--variant", "onnx_fp32", "--gpu", "no"]
    arguments += ["--model", str(path.parent / "1/model.onnx"), "--out", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert parse(path).name == "toy_onnx_fp32"


def test_an_engine_has_its_own_backend_and_nothing_of_onnx_runtime(write):
    result, path = write(*MODELS["image to (N, 1)"], gpu="yes", variant="trt_fp16")
    assert result.exit_code == 0, result.output
    config = parse(path)
    assert config.backend == "tensorrt"
    assert not config.parameters
    assert not config.HasField("optimization")
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert [one.name for one in config.input] == ["image"]


def test_the_reference_is_no_triton_model(write):
    result, path = write(*MODELS["image to (N, 1)"], variant="torch_fp32")
    assert result.exit_code == 1
    assert "torch_fp32 is no Triton model" in result.output
    assert not path.exists()


def test_torchscript_has_the_inputs_of_the_case_and_the_output_that_was_checked(write):
    _, path = write(*MODELS["first axis without a name"])
    check = Path("results/toy/torch_fp32.check.json")
    check.parent.mkdir(parents=True)
    check.write_text('{"output_shape": [2]}')
    out = path.parent.with_name("toy_torchscript_fp32") / "config.pbtxt"
    arguments = ["data/toy/case.toml", "--variant", "torchscript_fp32", "--gpu", "no"]
    result = CliRunner().invoke(main, [*arguments, "--model", str(check), "--out", str(out)])
    assert result.exit_code == 0, result.output
    config = parse(out)
    assert (config.name, config.backend) == ("toy_torchscript_fp32", "pytorch")
    assert config.platform == "pytorch_libtorch"
    assert [(one.name, list(one.dims)) for one in config.input] == [("x", [4])]
    assert [(one.name, list(one.dims)) for one in config.output] == [("output__0", [2])]
    assert config.parameters["DISABLE_OPTIMIZED_EXECUTION"].string_value == "true"


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (32, [1, 32])])
def test_each_model_is_warmed_up_at_the_batches_it_declares(write, largest, sizes):
    _, path = write(*MODELS["ids and mask to (N,)"], max_batch=largest)
    config = parse(path)
    assert [one.batch_size for one in config.model_warmup] == sizes
    for warmup in config.model_warmup:
        inputs = {name: (one.data_type, list(one.dims)) for name, one in warmup.inputs.items()}
        assert inputs == {one.name: (one.data_type, list(one.dims)) for one in config.input}
        assert all(one.zero_data for one in warmup.inputs.values())


# ---- each backend's own part ---------------------------------------------------------------------

BACKENDS = sorted({one.backend for one in BY_NAME.values() if one.backend})
# What every model is told, and then each backend, as Triton's documentation writes it.
SHARED = """
max_batch_size: 8
input [ {{ name: "ids" data_type: TYPE_INT64 dims: [ 16 ] }}, {{ name: "age" data_type: TYPE_FP32 dims: [ 1 ] reshape {{ shape: [ ] }} }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }} ]
dynamic_batching {{ preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 500 }}
instance_group [ {{ kind: {kind} count: 1 }} ]
model_warmup [
  {{ name: "batch 1" batch_size: 1
     inputs {{ key: "ids" value {{ data_type: TYPE_INT64 dims: [ 16 ] zero_data: true }} }}
     inputs {{ key: "age" value {{ data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }} }} }},
  {{ name: "batch 8" batch_size: 8
     inputs {{ key: "ids" value {{ data_type: TYPE_INT64 dims: [ 16 ] zero_data: true }} }}
     inputs {{ key: "age" value {{ data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }} }} }}
]
"""
ON_A_GPU = """
parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
optimization { execution_accelerators { gpu_execution_accelerator [
  { name: "cuda" parameters { key: "use_tf32" value: "0" } } ] } }
"""
TORCHSCRIPT = """
platform: "pytorch_libtorch"
parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
"""
OWN = {
    ("onnx_fp16", False): ("onnxruntime", ""),
    ("onnx_fp16", True): ("onnxruntime", ON_A_GPU),
    ("torchscript_fp32", False): ("pytorch", TORCHSCRIPT),
    ("torchscript_fp32", True): ("pytorch", TORCHSCRIPT),
    ("trt_int8", True): ("tensorrt", ""),
}
ENDS = Ends((End("ids", "int64", (16,)), End("age", "float32", ())), (End("y", "float32", (2,)),))


@pytest.mark.parametrize(("variant", "gpu"), OWN)
def test_the_whole_configuration_of_each_backend(variant, gpu):
    backend, own = OWN[variant, gpu]
    config = get_config("toy", variant, ENDS, 8, gpu)
    text = f'name: "toy" backend: "{backend}"' + own
    text += SHARED.format(kind="KIND_GPU" if gpu else "KIND_CPU")
    assert config == text_format.Parse(text, ModelConfig())
    written = to_text(config, get_comments(variant, config))
    assert text_format.Parse(written, ModelConfig()) == config


@pytest.mark.parametrize(
    ("variant", "gpu", "above", "why"),
    [
        ("onnx_fp32", True, "parameters {", "one load to the next"),
        ("onnx_fp32", True, "optimization {", "TF32"),
        ("torchscript_fp32", False, "parameters {", "rewrites the graph after the first runs"),
        ("trt_fp16", True, "model_warmup {", "before the model is called ready"),
        ("trt_fp16", True, "input {", "Triton has no empty dims"),
    ],
)
def test_why_it_is_so_stands_above_what_is_so(variant, gpu, above, why):
    config = get_config("toy", variant, ENDS, 8, gpu)
    before, found, _ = to_text(config, get_comments(variant, config)).partition(f"\n{above}")
    assert found
    lines = before.splitlines()
    last = max(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert why in " ".join(line.removeprefix("# ") for line in lines[last + 1 :])


def test_nothing_is_said_of_what_is_not_there():
    config = get_config("toy", "onnx_fp32", Ends((End("x", "bool", (2,)),), ()), 8, False)
    assert set(get_comments("onnx_fp32", config)) == {"dynamic_batching", "model_warmup"}


def test_every_backend_has_the_same_names_and_a_place_of_its_own():
    modules = [importlib.import_module(f"scripts.backends.{name}.config") for name in BACKENDS]
    assert sorted(module.PORTABLE for module in modules) == list(range(len(BACKENDS)))
    assert all(callable(getattr(one, name)) for one in modules for name in ("ends", "complete"))


def test_every_type_of_a_case_has_a_name_in_triton():
    assert set(TYPES) == set(DTYPES)
