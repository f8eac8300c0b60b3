"""Measuring with perf_analyzer: what it is asked, how its report is read, and what its exit codes mean.

It is not installed here. A shell script in its place tells what it was asked, and writes a report with the
columns that perf_analyzer's source writes.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from scripts.data.samples import Samples
from scripts.triton import measure_perf_analyzer
from scripts.triton.measure_perf_analyzer import climb, get_input_data
from tests.toy_case import INPUTS, Toy, run, says

HEADER = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
    "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
    "p50 latency,p90 latency,p95 latency,p99 latency"
)
PROGRAM = """\
#!/bin/sh
if [ "$1" = --version ]; then
    echo 'Perf Analyzer Version 2.60.0 (commit 0abc)' >&2
    exit 0
fi
echo "$*" >> calls
while [ $# -gt 0 ]; do
    case $1 in
    -f) report=$2 ;;
    --input-data) cp "$2" sent.json ;;
    --concurrency-range) level=${2%%:*} ;;
    --request-count) once=yes ;;
    esac
    shift
done
case $level in 1) rate=100 ;; 2) rate=150.5 ;; 4) rate=200 ;; *) rate=204 ;; esac
FAULT
echo 'HEADER' > "$report"
echo "$level,$rate,1,2,3,4,5,6,7,ROW" >> "$report"
"""
ROW = "8000,9000,9500,12345"


class Counters(BaseHTTPRequestHandler):
    """Triton's counters: 1,000 inferences in 500 executions from one question to the next."""

    asked = 0

    def do_GET(self) -> None:
        Counters.asked += 1
        known = self.path == "/v2/models/toy_onnx_fp32/stats"
        row = {"inference_count": 1000 * self.asked, "execution_count": 500 * self.asked}
        answer = {"model_stats": [row]} if known else {"error": "no such model"}
        self.send_response(200 if known else 400)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def http() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Counters)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def case(read_toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy case with the files of onnx_fp32, which nothing reads here, and a PATH of its own."""
    folder = Path("models/toy_onnx_fp32")
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("planted")
    (folder / "1/model.onnx").write_text("planted")
    Path("bin").mkdir()
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    return read_toy


def put(fault: str = ":", header: str = HEADER, row: str = ROW) -> None:
    """The shell script in the place of perf_analyzer."""
    text = PROGRAM.replace("FAULT", fault).replace("HEADER", header).replace("ROW", row)
    path = Path("bin/perf_analyzer")
    path.write_text(text)
    path.chmod(0o755)


def step(toy: Toy, http: str) -> Result:
    return run(
        measure_perf_analyzer.main, toy.toml, "--variant", "onnx_fp32", "--samples", toy.samples,
        "--repository", "models", "--http", http, "--grpc", "127.0.0.1:8001", "--mode", "docker",
        "--device", "cpu", "--out", toy.results / "onnx_fp32.perf.json",
    )  # fmt: skip


def measured(toy: Toy, http: str) -> dict[str, Any]:
    done = step(toy, http)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((toy.results / "onnx_fp32.perf.json").read_text())
    return found


def test_what_it_finds_in_our_units(case: Toy, http: str) -> None:
    put()
    done = step(case, http)
    assert done.output == (
        "onnx_fp32: perf_analyzer finds 204 requests/s at 8 in flight, p99 12.3 ms\n"
    )
    found = json.loads((case.results / "onnx_fp32.perf.json").read_text())
    assert (found["variant"], found["step"], found["mode"]) == ("onnx_fp32", "perf", "docker")
    assert found["versions"]["perf_analyzer"] == "Perf Analyzer Version 2.60.0 (commit 0abc)"
    assert set(found["inputs"]) == {
        "data/toy/case.toml", "results/toy/samples.json", "models/toy_onnx_fp32/config.pbtxt",
        "models/toy_onnx_fp32/1/model.onnx",
    }  # fmt: skip
    assert found["levels"][1] == {
        "concurrency": 2, "throughput_per_s": 150.5, "latency_p50_ms": 8.0, "latency_p90_ms": 9.0,
        "latency_p95_ms": 9.5, "latency_p99_ms": 12.345, "latency_p99_upper_ms": None, "stable": True,
        "statistics": {"average_batch": 2.0},
    }  # fmt: skip
    assert [one["concurrency"] for one in found["levels"]] == [1, 2, 4, 8, 16]
    assert found["best"] == {
        "concurrency": 8, "throughput_per_s": 204.0, "latency_p50_ms": 8.0, "latency_p90_ms": 9.0,
        "latency_p95_ms": 9.5, "latency_p99_ms": 12.345, "latency_p99_upper_ms": None,
    }  # fmt: skip


def test_what_it_is_asked(case: Toy, http: str) -> None:
    put()
    measured(case, http)
    calls = Path("calls").read_text().splitlines()
    assert len(calls) == 5
    words = calls[2].split()
    folder = Path(words[words.index("--input-data") + 1]).parent
    assert words == [
        "-m", "toy_onnx_fp32", "-u", "127.0.0.1:8001", "-i", "grpc", "-b", "1",
        "--input-data", f"{folder}/data.json", "--concurrency-range", "4:4:1",
        "--warmup-request-count", "20", "--percentile", "50", "-f", f"{folder}/report.csv",
        "--measurement-mode", "count_windows", "--measurement-request-count", "100",
        "--max-trials", "10",
    ]  # fmt: skip
    assert not folder.exists(), "nothing is left behind"


def test_the_requests_are_the_samples(case: Toy, http: str) -> None:
    put()
    measured(case, http)
    sent = json.loads(Path("sent.json").read_text())
    assert list(sent) == ["data"], "the format has no other member"
    assert len(sent["data"]) == len(INPUTS)
    for step, row in zip(sent["data"], INPUTS, strict=True):
        assert list(step) == ["x"] and step["x"]["shape"] == [2], "without the batch"
        raw = base64.b64decode(step["x"]["content"]["b64"], validate=True)
        assert np.array_equal(np.frombuffer(raw, "<f4"), row)


@pytest.mark.parametrize(("most", "size", "count"), [(4, 1 << 20, 4), (64, 24, 3), (64, 1, 1)])
def test_no_more_samples_than_fit(
    case: Toy, monkeypatch: pytest.MonkeyPatch, most: int, size: int, count: int
) -> None:
    """Of six samples with 8 bytes each, spread over all of them."""
    from scripts.case.read_case import read_case

    monkeypatch.setattr(measure_perf_analyzer, "SAMPLES", most)
    monkeypatch.setattr(measure_perf_analyzer, "SAMPLE_BYTES", size)
    steps = get_input_data(Samples(read_case(case.toml), case.samples))["data"]
    assert len(steps) == count
    rows = [np.frombuffer(base64.b64decode(one["x"]["content"]["b64"]), "<f4") for one in steps]
    assert np.array_equal(rows[0], INPUTS[0])
    assert count == 1 or np.array_equal(rows[-1], INPUTS[-1])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("dtype", [">i8", "float16", "bool"])
def test_every_dtype_and_shape_is_sent_as_triton_reads_it(
    shape: tuple[int, ...], dtype: str
) -> None:
    values = (np.arange(5 * int(np.prod(shape))) % 3).astype(dtype).reshape(5, *shape)

    class Five:
        def __len__(self) -> int:
            return 5

        def batch(self, start: int, stop: int) -> dict[str, Any]:
            return {"a": values[start:stop]}

    steps = get_input_data(Five())["data"]  # type: ignore[arg-type]
    little = values.dtype.newbyteorder("<")
    for step, value in zip(steps, values, strict=True):
        assert step["a"]["shape"] == (list(shape) or [1])
        raw = base64.b64decode(step["a"]["content"]["b64"])
        assert np.array_equal(np.frombuffer(raw, little).reshape(shape), value)


@pytest.mark.parametrize(("growth", "levels"), [(2.0, 7), (1.0, 4), (0.5, 4), (1.04, 4), (1.06, 7)])
def test_levels_until_throughput_stops_growing(growth: float, levels: int) -> None:
    """At least 1, 2, 4, and two that bring nothing; at most 64."""
    found = climb(
        lambda n: {"concurrency": n, "throughput_per_s": 100 * growth ** (n.bit_length() - 1)}
    )
    assert [one["concurrency"] for one in found] == [2**i for i in range(levels)]


def test_one_level_that_brings_nothing_may_be_bad_luck() -> None:
    rates = {1: 100, 2: 200, 4: 400, 8: 390, 16: 900, 32: 900, 64: 900}
    found = climb(lambda n: {"concurrency": n, "throughput_per_s": rates[n]})
    assert [one["concurrency"] for one in found] == [1, 2, 4, 8, 16, 32, 64]


# ---- exit codes ----------------------------------------------------------------------------------

UNSTABLE = """
if [ $level = 2 ] && [ -z "$once" ]; then
    echo 'Failed to obtain stable measurement within 10 measurement windows for concurrency 2.' >&2
    exit 2
fi
"""


def test_an_unstable_level_is_kept_and_marked(case: Toy, http: str) -> None:
    """perf_analyzer writes no report then: what its three windows asked is measured once."""
    put(UNSTABLE)
    done = step(case, http)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("; 1 of 5 levels are not stable\n")
    found = json.loads((case.results / "onnx_fp32.perf.json").read_text())
    assert [one["stable"] for one in found["levels"]] == [True, False, True, True, True]
    assert found["levels"][1]["throughput_per_s"] == 150.5
    calls = [line for line in Path("calls").read_text().splitlines() if " 2:2:1 " in line]
    assert len(calls) == 2
    assert calls[1].endswith("--request-count 300"), "of 1,000 requests in ten windows"
    assert "--measurement" not in calls[1]


def test_no_fewer_requests_than_are_in_flight(
    case: Toy, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """perf_analyzer refuses that."""
    put('if [ -z "$once" ]; then exit 2; fi; rate=$((level * 100))')
    monkeypatch.setattr(measure_perf_analyzer, "REQUESTS", 1)
    monkeypatch.setattr(measure_perf_analyzer, "WINDOWS", 0)
    found = measured(case, http)
    assert not any(one["stable"] for one in found["levels"])
    last = Path("calls").read_text().splitlines()[-1]
    assert " 64:64:1 " in last and last.endswith("--request-count 64")


@pytest.mark.parametrize("code", [2, 3, 99, 139])
def test_a_failure_is_told_in_its_own_words(case: Toy, http: str, code: int) -> None:
    put()
    measured(case, http)
    put(f"echo 'error: failed to get model metadata.' >&2; echo 'see --help'; exit {code}")
    case.refuses(lambda: step(case, http), f"exit code {code}",
                 "error: failed to get model metadata.", "toy_onnx_fp32, 1 in flight")  # fmt: skip


def test_a_failure_without_words(case: Toy, http: str) -> None:
    put("exit 99")
    says(step(case, http), "exit code 99", "it said nothing")


def test_it_is_missing(case: Toy, http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path("bin").absolute()))
    says(step(case, http), "perf_analyzer is not installed here", "MODE=docker")


def test_it_does_not_end(case: Toy, http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put("exec sleep 60")
    monkeypatch.setattr(measure_perf_analyzer, "SECONDS", 0.5)
    says(step(case, http), "has not ended within 0.5 seconds", "SERVED=no")


# ---- its report ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("p50 latency", "median latency", "no column 'p50 latency'; it has 'Concurrency'"),
        ("Inferences/Second", "Requests/Second", "no column 'Inferences/Second'"),
        ("Concurrency", "Request Rate", "no column 'Concurrency'"),
        ("p95 latency,p99 latency", "p95 latency", "no column 'p99 latency'"),
    ],
)
def test_a_column_is_missing(case: Toy, http: str, old: str, new: str, told: str) -> None:
    put(header=HEADER.replace(old, new))
    says(step(case, http), told, "Choose a RELEASE")


@pytest.mark.parametrize("value", ["0", "nan", "inf", "", "fast"])
def test_a_value_that_is_no_figure(case: Toy, http: str, value: str) -> None:
    put(row=f"{value},9000,9500,12345")
    says(step(case, http), f"gives {value!r} as 'p50 latency' with 1 in flight")


def test_a_row_that_is_cut_off(case: Toy, http: str) -> None:
    put(row="8000,9000")
    says(step(case, http), "gives None as 'p95 latency'")


def test_a_report_of_another_level(case: Toy, http: str) -> None:
    put("level=7")
    says(step(case, http), "has 0 rows for 1 in flight")


def test_no_report_at_all(case: Toy, http: str) -> None:
    put("exit 0")
    says(step(case, http), "ended well and wrote no report")


def test_more_columns_are_no_harm(case: Toy, http: str) -> None:
    put(header=HEADER + ",request/response,response wait", row=ROW + ",1,2")
    assert measured(case, http)["levels"][0]["latency_p99_ms"] == 12.345


# ---- the server beside it ------------------------------------------------------------------------


def test_no_server_is_there(case: Toy) -> None:
    put()
    says(step(case, "127.0.0.1:9"), "Triton at 127.0.0.1:9 tells no counters of toy_onnx_fp32")


def test_a_server_without_the_model(case: Toy, http: str) -> None:
    put()
    (Path("models/toy_onnx_fp32")).rename("models/toy_onnx_fp16")
    done = run(
        measure_perf_analyzer.main, case.toml, "--variant", "onnx_fp16", "--samples", case.samples,
        "--repository", "models", "--http", http, "--grpc", "127.0.0.1:8001", "--mode", "docker",
        "--device", "cpu", "--out", "results/toy/onnx_fp16.perf.json",
    )  # fmt: skip
    says(done, "tells no counters of toy_onnx_fp16", "with that model loaded")


def test_serving_one_variant_says_when_it_is_ready_and_ends_on_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """With a real Triton, and its counters as this step reads them."""
    import signal
    import socket

    from tests.triton.test_score_served import plant

    monkeypatch.chdir(tmp_path)
    plant(Path("models"), "toy_onnx_fp32")
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.triton.serve_variant", "toy", "--variant", "onnx_fp32",
         "--repository", "models", "--log", "server.log", "--ports", *ports],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready: toy_onnx_fp32\n"
    http = f"127.0.0.1:{ports[0]}"
    before = measure_perf_analyzer.read_counts(http, "toy_onnx_fp32")
    assert min(before) >= 0
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and rest == "Stopped.\n"
