"""Scoring through a real Triton server: sound models pass, planted faults are found, deaths are told."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result

from scripts.graphs.ends import End, Ends
from scripts.triton import client as triton_client
from scripts.triton import score_served
from scripts.triton.client import (
    decode,
    encode,
    open_grpc,
    open_http,
    read_model,
)
from scripts.triton.counters import counted, read_counters
from scripts.triton.model_config import write_text
from scripts.triton.score_served import merge, open_in_flight
from scripts.triton.server import Server, running_server
from scripts.triton.write_config import get_common, get_config
from tests.toy_case import Toy, run

pytestmark = pytest.mark.xdist_group("served")  # what is set up once for all is set up once

COUNT, THRESHOLD = 61, 0.5  # an odd number: the last batch of every condition is a smaller one
CONDITIONS = [
    *(f"{protocol}, batch {size}" for protocol in ("HTTP", "gRPC") for size in (1, 3, 4)),
    "gRPC, other slots", "16 in flight", "after a restart",
]  # fmt: skip
ENDS = Ends((End("x", "float32", (2,)),), (End("output", "float32", (1,)),))

# A Python model in the place of the candidate: z is what a batch is answered with, row by row.
PLANTED = """\
import os
import signal
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.executed = 0
        counter = os.path.join(args["model_repository"], "started")
        with open(counter, "a", encoding="utf-8") as file:
            file.write("x")
        self.started = os.path.getsize(counter)

    def execute(self, requests):
        self.executed += 1
        x = [request.inputs()[0].as_numpy() for request in requests]
        sizes = [len(rows) for rows in x]
        z = (np.concatenate(x).astype(np.float64) @ [[1.5], [-0.5]] + 0.25).astype(np.float32)
        FAULT
        parts = np.split(z, np.cumsum(sizes)[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("output", part)]) for part in parts]
"""


def inputs(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 2, (count, 2)).astype(np.float32)


def linear(x: np.ndarray) -> np.ndarray:
    """What the toy model gives, float32, shape (n, 1)."""
    return (x.astype(np.float64) @ [[1.5], [-0.5]] + 0.25).astype(np.float32)


def plant(repository: Path, name: str, fault: str = "pass", max_batch: int = 4) -> None:
    """A Python model in the place of a candidate; what counts as its file is never read."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    write_text(folder / "config.pbtxt", get_common(name, "python", ENDS, max_batch, False))
    (folder / "1" / "model.py").write_text(PLANTED.replace("FAULT", fault))
    (folder / "1" / "model.onnx").write_bytes(b"planted")


def save_onnx(repository: Path, name: str, max_batch: int = 4) -> None:
    """The toy model as ONNX with a dynamic batch, ready to be served."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    node = helper.make_node("Gemm", ["x", "w", "b"], ["output"])
    graph = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 1])],
        [
            numpy_helper.from_array(np.array([[1.5], [-0.5]], np.float32), "w"),
            numpy_helper.from_array(np.array([0.25], np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    save(model, folder / "1" / "model.onnx")
    write_text(folder / "config.pbtxt", get_config(name, "onnx_fp32", ENDS, max_batch, False))


def store(toy: Toy, count: int = COUNT) -> np.ndarray:
    """Samples of the toy case, and what it gives for them in process, where the steps look for it."""
    x = inputs(count)
    z = linear(x)[:, 0]
    assert np.abs(z - THRESHOLD).min() > 1e-3, "no sample lies on the threshold"
    toy.save("inputs.npy", x)
    toy.save("labels.npy", (z >= THRESHOLD).astype(np.uint8))
    assert toy.read().exit_code == 0
    np.save(toy.results / "onnx_fp32.logits.npy", z)
    told = {"threshold": THRESHOLD, "retuning": None}
    (toy.results / "onnx_fp32.verdicts.json").write_text(json.dumps(told))
    return z


def step(toy: Toy, log: Path = Path("logs/server.log")) -> Result:
    return run(
        score_served.main, toy.toml, "--variant", "onnx_fp32", "--samples", toy.samples,
        "--repository", "models", "--mode", "local", "--device", "cpu",
        "--logits", toy.results / "onnx_fp32.logits.npy",
        "--verdicts", toy.results / "onnx_fp32.verdicts.json",
        "--log", log, "--out", toy.results / "onnx_fp32.served.json",
    )  # fmt: skip


def served(toy: Toy, fault: str) -> tuple[dict[str, Any], dict[str, int]]:
    """(the result, condition -> flips) of the step on a planted model."""
    store(toy)
    plant(Path("models"), "toy_onnx_fp32", fault)
    done = step(toy)
    assert done.exit_code == 0, done.output
    found = json.loads((toy.results / "onnx_fp32.served.json").read_text())
    assert list(found["conditions"]) == CONDITIONS
    assert found["metrics"]["flips"] == len(found["samples"])
    return found, {name: row["flips"] for name, row in found["conditions"].items()}


def test_a_sound_model_passes_every_condition(toy: Toy) -> None:
    store(toy)
    save_onnx(Path("models"), "toy_onnx_fp32")
    done = step(toy)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("onnx_fp32: 9 conditions in Triton, 0 of 61 verdicts differ, la")
    found = json.loads((toy.results / "onnx_fp32.served.json").read_text())
    assert found["step"] == "served"
    assert list(found["conditions"]) == CONDITIONS
    assert found["samples"] == [] and found["metrics"]["flips"] == 0
    assert found["metrics"]["deviation_max_absolute"] < 1e-5
    assert found["server"]["backend"] == "onnxruntime"
    assert {"models/toy_onnx_fp32/config.pbtxt", "models/toy_onnx_fp32/1/model.onnx"} <= set(
        found["inputs"]
    )
    told = found["statistics"]
    assert told["inferences"] == told["requests"] == COUNT and told["failed"] == 0
    sizes = {int(size): times for size, times in told["batch_sizes"].items()}
    assert sum(size * times for size, times in sizes.items()) == COUNT
    assert sum(sizes.values()) == told["executions"] < COUNT, "batches formed"
    assert max(sizes) == 4 and told["average_batch"] == COUNT / told["executions"]


def test_every_row_but_the_first_of_a_batch_is_wrong(toy: Toy) -> None:
    """The fault that a test with single samples never sees."""
    found, flips = served(toy, "z[1:] = 1 - z[1:]")
    assert flips["HTTP, batch 1"] == flips["gRPC, batch 1"] == 0
    assert flips["HTTP, batch 3"] == flips["gRPC, batch 3"] == 15 * 2  # of four: three, then one
    assert flips["HTTP, batch 4"] == flips["gRPC, batch 4"] == 15 * 3
    assert flips["gRPC, other slots"] == flips["after a restart"] == 15 * 3
    assert flips["16 in flight"] > 0
    assert set(found["samples"]) >= set(range(60)), "each stands behind another somewhere"


def test_whoever_stands_first_in_a_batch_gets_another_answer(toy: Toy) -> None:
    found, flips = served(toy, "z[0] = 1 - z[0] if len(z) > 1 else z[0]")
    assert flips["HTTP, batch 1"] == flips["gRPC, batch 1"] == 0
    assert flips["gRPC, batch 4"] == 15  # the last batch is one sample
    assert flips["gRPC, other slots"] == 15, "others than before"
    assert set(found["samples"]) >= {*range(0, 60, 4), *range(3, 60, 4)}
    assert found["conditions"]["gRPC, batch 4"]["deviation_max_absolute"] > 0.1


def test_answers_of_requests_in_flight_are_mixed_up(toy: Toy) -> None:
    found, flips = served(toy, "z = z[::-1].copy() if len(sizes) > 1 else z")
    wrong = flips.pop("16 in flight")
    assert wrong == found["metrics"]["flips"] > 0
    assert set(flips.values()) == {0}, "each client alone sees nothing"


def test_other_answers_after_a_restart(toy: Toy) -> None:
    """And they are no numbers: told as such, and negative."""
    found, flips = served(toy, "z = z * np.nan if self.started > 1 else z")
    positives = int((linear(inputs()) >= THRESHOLD).sum())
    assert flips.pop("after a restart") == found["metrics"]["flips"] == positives > 0
    assert set(flips.values()) == {0}
    deviations = [row["deviation_max_absolute"] for row in found["conditions"].values()]
    assert deviations[-1] is None and found["metrics"]["deviation_max_absolute"] is None
    assert max(deviations[:-1]) == 0


DEATH = "os.kill(os.getppid(), signal.SIGKILL) if self.executed > 40 else None"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (DEATH, ["tritonserver ended (killed by SIGKILL); its last words: "]),
        ("os.abort() if self.executed > 40 else None", ["toy_onnx_fp32 in Triton, a batch of "]),
        (
            "z = z[:-1]",
            ["toy_onnx_fp32 in Triton answers a batch of 1 with float32 of shape (0, 1)"],
        ),
        ("z = np.repeat(z, 3, axis=1)", ["toy_onnx_fp32 in Triton", "the shape (4, 3)", "'logit'"]),
    ],
)
def test_what_breaks_in_the_middle_leaves_no_result(toy: Toy, fault: str, words: list[str]) -> None:
    store(toy)
    plant(Path("models"), "toy_onnx_fp32", fault)
    (toy.results / "onnx_fp32.served.json").write_text("the result of before")
    text = toy.refuses(lambda: step(toy), *words)
    assert len(text) < 1000
    assert not list(Path().rglob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda toy: np.save(toy.results / "onnx_fp32.logits.npy", np.zeros(5, np.float32)),
         ["5 logits and 61 samples"]),
        (lambda toy: (Path("models/toy_onnx_fp32/1/model.onnx")).unlink(),
         ["models/toy_onnx_fp32/1/model.onnx is missing", "make all"]),
        (lambda toy: (Path("models/toy_onnx_fp32/config.pbtxt")).write_text("name: 'toy"),
         ["toy_onnx_fp32"]),
    ],
)  # fmt: skip
def test_refusals(toy: Toy, change: Callable[[Toy], object], words: list[str]) -> None:
    store(toy)
    plant(Path("models"), "toy_onnx_fp32")
    change(toy)
    toy.refuses(lambda: step(toy), *words)


def test_the_reference_is_not_served(toy: Toy) -> None:
    done = run(score_served.main, toy.toml, "--variant", "torch_fp32")
    assert done.exit_code == 2 and "torch_fp32" in done.output


def test_a_sample_that_flips_twice_counts_once() -> None:
    def part(name: str, samples: list[int], deviation: float | None) -> dict[str, Any]:
        row = {"flips": len(samples), "deviation_max_absolute": deviation}
        return {"threshold": 0.5, "conditions": {name: row}, "samples": samples}

    found = merge([part("a", [1, 5], 0.25), part("b", [5, 9], 0.5), part("c", [], 0.0)])
    assert found["samples"] == [1, 5, 9]
    assert found["metrics"] == {"flips": 3, "deviation_max_absolute": 0.5}
    assert merge([part("a", [], None)])["metrics"]["deviation_max_absolute"] is None


# ---- the client, on one server for all ------------------------------------------------------------
KINDS = {"FP16": np.float16, "FP64": np.float64, "BOOL": np.bool_, "INT64": np.int64,
         "UINT8": np.uint8}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With `linear`, one model that gives back what it gets for each of KINDS, and some odd ones."""
    folder = tmp_path_factory.mktemp("server")
    plant(folder / "models", "linear", max_batch=8)
    plant(folder / "models", "slow", "time.sleep(2) if self.executed > 2 else None")
    x, y = (End("x", "float32", (2,)),), End("y", "float32", (6_000_000,))
    for kind in KINDS:
        ends = Ends((End("x", "float32", ()),), (End("y", "float32", (3,)),))
        echo(folder / "models", f"echo_{kind}", ends, "np.stack([x, x, x], axis=1)", kind)
    echo(folder / "models", "big", Ends(x, (y,)), "np.repeat(x[:, :1], 6_000_000, axis=1)")
    two = Ends(x, tuple(End(name, "float32", (2,)) for name in ("y", "other")))
    echo(folder / "models", "two", two, "x")
    names = sorted(path.name for path in (folder / "models").iterdir())
    with running_server(folder / "models", names, folder / "server.log", at_once=True) as server:
        yield server


def echo(repository: Path, name: str, ends: Ends, answer: str, kind: str = "FP32") -> None:
    from tritonclient.grpc.model_config_pb2 import DataType

    plant(repository, name)
    config = get_common(name, "python", ends, 4, False)
    for one in (*config.input, *config.output):
        one.data_type = DataType.Value(f"TYPE_{kind}")
    config.ClearField("model_warmup")
    write_text(repository / name / "config.pbtxt", config)
    (repository / name / "1" / "model.py").write_text(
        "import numpy as np\nimport triton_python_backend_utils as pb_utils\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        answers = []\n"
        "        for request in requests:\n"
        "            x = request.inputs()[0].as_numpy()\n"
        f"            tensor = pb_utils.Tensor('y', {answer})\n"
        "            answers.append(pb_utils.InferenceResponse([tensor]))\n"
        "        return answers\n"
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_type_there_and_back(server: Server, kind: str) -> None:
    """One number per sample, shape (n,): Triton's shape has an axis for it."""
    x = np.array([0, 1, 2, 200]).astype(KINDS[kind])
    name = f"echo_{kind}"
    for opened in (open_http, open_grpc, lambda *two: open_in_flight(*two, 3)):
        with opened(server, name) as ask:
            y = ask({"x": x})
        assert y.dtype == x.dtype and y.shape == (4, 3)
        assert (y == x[:, None]).all()


def test_answers_of_any_size(server: Server) -> None:
    """96 MB each way of the four samples' answers: more than gRPC's usual 4 MB."""
    with open_http(server, "big") as http, open_grpc(server, "big") as grpc:
        for ask in (http, grpc):
            y = ask({"x": np.arange(8, dtype=np.float32).reshape(4, 2)})
            assert y.shape == (4, 6_000_000) and (y[:, -1] == [0, 2, 4, 6]).all()


def test_a_model_with_two_outputs_is_refused(server: Server) -> None:
    with pytest.raises(click.ClickException, match=r"two in Triton has the outputs y, other"):
        read_model(server, "two")


def test_a_model_that_is_not_loaded(server: Server) -> None:
    with pytest.raises(click.ClickException, match="absent"):
        read_model(server, "absent")


MALFORMED = {
    "shape": {"x": np.zeros((1, 3), np.float32)},
    "rank": {"x": np.zeros((1, 2, 2), np.float32)},
    "type": {"x": np.zeros((1, 2), np.float64)},
    "name": {"y": np.zeros((1, 2), np.float32)},
    "batch": {"x": np.zeros((9, 2), np.float32)},
    "more": {"x": np.zeros((1, 2), np.float32), "y": np.zeros((1, 2), np.float32)},
}


@pytest.mark.parametrize("protocol", [open_http, open_grpc])
def test_a_malformed_request_among_every_ten_harms_no_other(server: Server, protocol: Any) -> None:
    x, kinds = inputs(1000), list(MALFORMED)
    before = read_counters(server, "linear")
    with protocol(server, "linear") as ask:
        for i in range(1000):
            if i % 10 == 3:
                with pytest.raises(click.ClickException, match="linear in Triton, a batch of "):
                    ask(MALFORMED[kinds[i // 10 % len(kinds)]])
            else:
                assert ask({"x": x[i : i + 1]})[0, 0] == linear(x[i : i + 1])[0, 0]
    assert counted(server, "linear", before, 900)["requests"] == 900


def test_a_malformed_request_in_flight_ends_all_with_tritons_words(server: Server) -> None:
    with open_in_flight(server, "linear", 8) as ask:
        with pytest.raises(click.ClickException, match="unexpected shape for input 'x'"):
            ask({"x": np.zeros((40, 3), np.float32)})
        x = inputs(100)
        assert (ask({"x": x}) == linear(x)).all(), "and the connection is still good"


def test_concurrent_clients_get_their_own_answers(server: Server) -> None:
    """Two over HTTP, two over gRPC, two with eight requests in flight each."""
    wrong: list[str] = []

    def client(number: int) -> None:
        x = inputs(600)[number * 100 : (number + 1) * 100]
        opened = [open_http, open_grpc, lambda *two: open_in_flight(*two, 8)][number % 3]
        with opened(server, "linear") as ask:
            for start in range(0, 100, 5):
                if (ask({"x": x[start : start + 5]}) != linear(x[start : start + 5])).any():
                    wrong.append(f"client {number}, from {start} on")

    before = read_counters(server, "linear")
    clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert not wrong
    told = counted(server, "linear", before, 600)
    assert told["inferences"] == 600 and told["executions"] < 4 * 20 + 200, (
        "strangers shared batches"
    )


@pytest.mark.parametrize("protocol", [open_http, open_grpc])
def test_an_answer_that_does_not_come_is_not_waited_for(
    server: Server, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_client, "SECONDS", 0.5)
    late = pytest.raises(click.ClickException, match=r"no answer within 0\.5 seconds")
    with protocol(server, "slow") as ask, late:
        ask({"x": np.zeros((1, 2), np.float32)})


def test_a_body_above_the_limit_says_what_to_do(server: Server) -> None:
    """The server here takes any size; what another one answers is put into the same sentence."""
    error = triton_client.refusal(
        server, "m", "a batch of 32 over HTTP", "too much", "413", 99 << 20
    )
    assert "99 MiB" in str(error) and "--http-max-input-size" in str(error)
    assert "max_batch in case.toml" in str(error)


def test_a_request_is_what_tritonclient_sends(server: Server) -> None:
    model = read_model(server, "linear")
    x = inputs(3)
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest.FromString(encode(model, {"x": x}))
    assert list(request.inputs[0].shape) == [3, 2] and request.inputs[0].datatype == "FP32"
    answer = service_pb2.ModelInferResponse(raw_output_contents=[linear(x).tobytes()])
    answer.outputs.add(name="output", datatype="FP32", shape=[3, 1])
    assert (decode(model, answer.SerializeToString(), 3) == linear(x)).all()
    with pytest.raises(click.ClickException, match="answers a batch of 2 with float32 of shape"):
        decode(model, answer.SerializeToString(), 2)
