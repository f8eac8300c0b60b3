"""The TensorRT parts of the hardware check, with ONNX Runtime on the CPU in the place of TensorRT."""

import importlib.util
import inspect
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from scripts import step
from scripts.backends.tensorrt import layers as tensorrt_layers
from scripts.backends.tensorrt import open as tensorrt_open
from scripts.backends.tensorrt import prove as inspect_engine
from scripts.graphs.marked import marked
from scripts.score import measure_latency
from tests.hardware import engines, parts, subjects
from tests.project import Project


def layers(kind: str) -> list[dict[str, Any]]:
    """One layer, as the inspector lists it."""
    return [{"LayerType": "gemm", "Outputs": [{"Format/Datatype": f"Row major linear {kind}"}]}]


@contextmanager
def plain(path: Path) -> Iterator[Any]:
    """A runner of the "engine", which is the ONNX it was built from."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    with OnnxrtRunner(SessionFromOnnx(str(path), providers=["cpu"])) as runner:
        yield SimpleNamespace(infer=runner.infer, engine=path, context=None)


@contextmanager
def running(path: Path) -> Iterator[Any]:
    """A runner of every tensor of the ONNX."""
    yield SimpleNamespace(infer=marked(path))


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of that name, with what is asked of it here."""
    spec = importlib.util.spec_from_loader("tensorrt", None)
    assert spec is not None
    stub: Any = importlib.util.module_from_spec(spec)
    stub.__version__, stub.ProfilingVerbosity = "0", SimpleNamespace(DETAILED="detailed")
    monkeypatch.setitem(sys.modules, "tensorrt", stub)
    assert isinstance(stub, ModuleType)


@pytest.fixture
def on_gpu(tmp_path: Path, tensorrt: None, monkeypatch: pytest.MonkeyPatch) -> subjects.Subject:
    """The bundled case, asked for on "cuda"."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: measure.py runs the real parts")

    def build(case: Any, model: Path, out: Path) -> None:
        out.parent.mkdir(parents=True)
        shutil.copyfile(model, out)

    for module, name, value in (
        (engines, "build", build),
        (tensorrt_open, "open_engine", plain),
        (tensorrt_layers, "open_engine", plain),
        (tensorrt_layers, "marked_engine", lambda path, case: path),
        (tensorrt_layers, "running", lambda path, name: running(path)),
        (inspect_engine, "open_engine", plain),
        (step, "gpu_name", lambda device: "NVIDIA X"),
        (inspect_engine, "tensors", lambda engine: {}),
        (inspect_engine, "check_fit", lambda found, case, model: None),
        (
            inspect_engine,
            "inspect",
            lambda plan, _: layers("FP16" if "16" in str(plan) else "FP32"),
        ),
        (measure_latency, "ROUNDS", (3, 3)),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.chdir(Project(tmp_path / "project").folder)
    return subjects.open_subject("digits", rehearse=False)


def test_engines_are_scored_timed_and_proven(on_gpu: subjects.Subject) -> None:
    rows = list(parts.tensorrt_part(on_gpu))
    assert [(row["what"], row["state"], row["words"]) for row in rows] == [
        ("trt_fp32", "ok", "0% of the layers are float16"),
        ("trt_fp16", "ok", "100% of the layers are float16"),
    ]
    for row in rows:
        figures = row["figures"]
        assert (figures["provider"], figures["samples"], figures["depends"]) == (
            "TensorRT",
            899,
            [],
        )
        assert "times_as_fast" not in figures["latency"]["32"], "torch has no GPU here"


def test_engines_are_compared_tensor_by_tensor(on_gpu: subjects.Subject) -> None:
    rows = list(parts.layers_part(on_gpu))
    assert [(row["what"], row["state"]) for row in rows] == [("trt_fp32", "ok"), ("trt_fp16", "ok")]
    for row in rows:
        assert row["figures"]["tensors"] > 5
        assert row["figures"]["relative_error_max"] == 0, "both sides are the same here"
        assert row["figures"]["at"] in row["words"]


def test_an_engine_in_another_precision_fails(on_gpu: subjects.Subject, monkeypatch: Any) -> None:
    monkeypatch.setattr(inspect_engine, "inspect", lambda plan, _: layers("FP32"))
    rows = {row["what"]: row for row in parts.tensorrt_part(on_gpu)}
    assert rows["trt_fp32"]["state"] == "ok"
    assert "none of its 1 layers computes in float16" in rows["trt_fp16"]["words"]


def test_what_an_engine_is_asked_to_be(tmp_path: Path, tensorrt: None, monkeypatch: Any) -> None:
    import polygraphy.backend.trt as trt

    asked: dict[str, Any] = {}

    def record(name: str) -> Any:
        taken = inspect.signature(getattr(trt, name))

        def call(*given: Any, **named: Any) -> Any:
            taken.bind(*given, **named)
            return asked.setdefault(name, (given, named))

        return call

    for name in ("NetworkFromOnnxPath", "CreateConfig"):
        monkeypatch.setattr(trt, name, record(name))
    monkeypatch.setattr(trt, "EngineBytesFromNetwork", lambda *_: lambda: bytearray(b"plan"))
    case: Any = SimpleNamespace(inputs=[SimpleNamespace(name="x", shape=(3, 5))], max_batch=7)
    engines.build(case, Path("m.onnx"), tmp_path / "1/model.plan")
    assert (tmp_path / "1/model.plan").read_bytes() == b"plan"
    assert asked["NetworkFromOnnxPath"] == (("m.onnx",), {"strongly_typed": True})
    settings = asked["CreateConfig"][1]
    [profile] = settings.pop("profiles")
    assert settings == {"tf32": False, "profiling_verbosity": "detailed"}
    assert (profile["x"].min, profile["x"].opt, profile["x"].max) == (
        (1, 3, 5),
        (7, 3, 5),
        (7, 3, 5),
    )
