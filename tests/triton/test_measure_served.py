"""Measuring a real Triton server: levels that make sense, wrong answers under load found, no errors."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from scripts import step as shared
from scripts.bench.served import measure_ceiling
from scripts.data.samples import Samples
from scripts.triton import measure_served
from scripts.triton.client import connect
from scripts.triton.measure_served import climb, drive, hold, pool
from scripts.triton.memory import gpu_memory_mb, memory_mb, seconds_since_start
from scripts.triton.server import Server
from tests.toy_case import Toy, run
from tests.triton.test_score_served import inputs, linear, plant, save_onnx, store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows: what is tested is not how fast this machine is."""
    monkeypatch.setattr(measure_served, "SECONDS", (0.2, 5.0))
    monkeypatch.setattr(measure_served, "REQUESTS", (50, 8000))
    monkeypatch.setattr(measure_served, "WARM_UP", 0.05)


def step(toy: Toy, *variants: str, device: str = "cpu") -> Result:
    return run(
        measure_served.main, toy.toml, "--samples", toy.samples, "--repository", "models",
        "--results", toy.results, "--mode", "local", "--device", device,
        "--out", toy.results / "served_latency.json", *(variants or ("onnx_fp32",)),
    )  # fmt: skip


def measured(toy: Toy, *variants: str, device: str = "cpu") -> dict[str, Any]:
    done = step(toy, *variants, device=device)
    assert done.exit_code == 0, done.output
    assert "requests/s at " in done.output
    found: dict[str, Any] = json.loads((toy.results / "served_latency.json").read_text())
    return found


def test_levels_that_make_sense(toy: Toy) -> None:
    """Two variants, each in a server of its own."""
    store(toy)
    for end in ("logits.npy", "verdicts.json"):
        content = (toy.results / f"onnx_fp32.{end}").read_bytes()
        (toy.results / f"onnx_fp16.{end}").write_bytes(content)
    save_onnx(Path("models"), "toy_onnx_fp32")
    plant(Path("models"), "toy_onnx_fp16")
    found = measured(toy, "onnx_fp32", "onnx_fp16")
    assert found["step"] == "served_latency" and found["server"]["version"]
    assert list(found["variants"]) == ["onnx_fp32", "onnx_fp16"]
    assert len(found["inputs"]) == 2 + 2 * 4
    for name, row in found["variants"].items():
        assert row["flips"] == 0 and row["samples"] == []
        levels = row["levels"]
        assert [one["concurrency"] for one in levels] == [2**i for i in range(len(levels))]
        assert 3 <= len(levels) <= 7
        assert row["samples_checked"] == sum(one["samples_checked"] for one in levels)
        for one in levels:
            check_level(name, one)
        top = max(one["throughput_per_s"] for one in levels)
        assert row["best"]["throughput_per_s"] == top
        assert set(row["best"]) == {
            "concurrency", "throughput_per_s", "latency_p50_ms", "latency_p90_ms",
            "latency_p95_ms", "latency_p99_ms", "latency_p99_upper_ms", "latency_p50_interval_ms",
        }  # fmt: skip
        assert levels[2]["statistics"]["average_batch"] > 1, "batches formed"
    assert found["variants"]["onnx_fp32"]["backend"] == "onnxruntime"


def check_level(name: str, level: dict[str, Any]) -> None:
    told, shown = level["statistics"], f"{name}: {level}"
    assert level["throughput_per_s"] > 0, shown
    times = [level[f"latency_p{p}_ms"] for p in (50, 90, 95, 99)]
    assert times == sorted(times) and times[0] > 0, shown
    low, high = level["latency_p50_interval_ms"]
    assert 0 < low <= times[0] <= high, shown
    bound = level["latency_p99_upper_ms"]
    assert bound is None if level["requests"] < 299 else bound >= times[3], shown
    assert level["requests"] >= 50 and level["samples_checked"] >= level["requests"], shown
    assert level["throughput_per_s"] == pytest.approx(level["requests"] / level["seconds"])
    assert 0 < level["generator_cpu_share"] < 2, shown
    # Triton's own numbers: it answered as many as were sent, and its times are within ours.
    assert told["inferences"] == told["requests"] == level["samples_checked"], shown
    assert told["failed"] == 0 and 1 <= told["average_batch"] <= 4, shown
    assert told["queue_ms"] + told["compute_ms"] < max(times) * 2, shown
    # Little's law: in flight = throughput x time in the system.
    assert level["concurrency"] > 0.3 * level["throughput_per_s"] * times[0] / 1e3, shown


def test_wrong_answers_under_load_are_counted(toy: Toy) -> None:
    """Right while requests come one at a time: only a load shows it."""
    z = store(toy)
    plant(Path("models"), "toy_onnx_fp32", "z[3:] = 1 - z[3:]")  # the fourth of a batch
    row = measured(toy)["variants"]["onnx_fp32"]
    first, *others = row["levels"]
    assert first["flips"] == 0
    assert row["flips"] == sum(one["flips"] for one in others) > 0
    assert row["flips"] < row["samples_checked"]
    assert row["samples"] and set(row["samples"]) <= set(range(len(z)))


def test_one_sample_that_is_always_wrong(toy: Toy) -> None:
    z = store(toy)
    z[17] = 1 - z[17]
    np.save(toy.results / "onnx_fp32.logits.npy", z)
    plant(Path("models"), "toy_onnx_fp32")
    row = measured(toy)["variants"]["onnx_fp32"]
    assert row["samples"] == [17]
    assert row["flips"] == pytest.approx(row["samples_checked"] / len(z), rel=0.1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("os.kill(os.getppid(), signal.SIGKILL) if self.executed > 60 else None",
         ["tritonserver ended (killed by SIGKILL); its last words: ", "onnx_fp32.load.log"]),
        ("z = np.repeat(z, 3, axis=1)", ["toy_onnx_fp32", "the shape (", "'logit'"]),
    ],
)  # fmt: skip
def test_what_breaks_under_load_leaves_no_result(toy: Toy, fault: str, words: list[str]) -> None:
    store(toy)
    plant(Path("models"), "toy_onnx_fp32", fault)
    (toy.results / "onnx_fp32.load.log").write_text("")
    (toy.results / "served_latency.json").write_text("the result of before")
    done = step(toy)
    assert done.exit_code == 1 and done.output.startswith("Error: "), done.output
    assert all(word in done.output for word in words), done.output
    assert (toy.results / "served_latency.json").read_text() == "the result of before"
    assert not list(Path().rglob("*.tmp"))


def test_an_error_is_not_tolerated(toy: Toy) -> None:
    """One request in many is refused by the model."""
    store(toy)
    fault = "sizes = 1 / 0 if self.executed == 60 else sizes"
    plant(Path("models"), "toy_onnx_fp32", fault)
    done = step(toy)
    assert done.exit_code == 1 and "division by zero" in done.output, done.output
    assert done.output.startswith("Error: toy_onnx_fp32 in Triton, one of several requests in fli")
    assert not (toy.results / "served_latency.json").exists()


def test_other_numbers_of_logits_and_samples(toy: Toy) -> None:
    store(toy)
    np.save(toy.results / "onnx_fp32.logits.npy", np.zeros(5, np.float32))
    plant(Path("models"), "toy_onnx_fp32")
    assert "5 logits and 61 samples" in step(toy).output


# ---- what the server costs -------------------------------------------------------------------------


def test_a_server_that_starts_slowly_and_once_holds_much(toy: Toy) -> None:
    """Its stub does, which is a process of its own; what it gave back counts too."""
    store(toy)
    for end in ("logits.npy", "verdicts.json"):
        content = (toy.results / f"onnx_fp32.{end}").read_bytes()
        (toy.results / f"onnx_fp16.{end}").write_bytes(content)
    plant(Path("models"), "toy_onnx_fp32")
    plant(Path("models"), "toy_onnx_fp16", "self.executed == 3 and np.ones(25_000_000)")  # 200 MB
    model = Path("models/toy_onnx_fp16/1/model.py")
    text = model.read_text()
    assert text.count("        self.executed = 0") == 1
    model.write_text(
        text.replace("        self.executed = 0", "        time.sleep(1); self.executed = 0")
    )
    begin = time.monotonic()
    rows = measured(toy, "onnx_fp32", "onnx_fp16")["variants"]
    took = time.monotonic() - begin
    plain, costly = rows["onnx_fp32"], rows["onnx_fp16"]
    assert plain["gpu_memory_mb"] is costly["gpu_memory_mb"] is None
    assert plain["start_s"] > 0.05 and costly["start_s"] > 1
    windows = sum(level["seconds"] for row in rows.values() for level in row["levels"])
    assert plain["start_s"] + costly["start_s"] + windows < took, "what follows is no part of it"
    assert 30 < plain["memory_mb"] < 200, "tritonserver, NumPy"
    assert 190 < costly["memory_mb"] - plain["memory_mb"] < 230


def test_the_memory_of_the_gpu_is_asked_where_there_is_one(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(shared, "gpu_name", lambda device: f"a {device} device")
    monkeypatch.setattr(measure_served, "gpu_memory_mb", lambda at: asked.append(at) or 345.5)
    store(toy)
    plant(Path("models"), "toy_onnx_fp32")
    assert measured(toy)["variants"]["onnx_fp32"]["gpu_memory_mb"] is None
    assert not asked
    found = measured(toy, device="cuda")
    assert found["gpu"] == "a cuda device"
    assert found["variants"]["onnx_fp32"]["gpu_memory_mb"] == 345.5
    assert len(asked) == 1 and asked[0].startswith("127.0.0.1:")


def test_the_age_of_a_process(tmp_path: Path) -> None:
    """Also where its name looks like fields of /proc/<pid>/stat."""
    program = tmp_path / "a) b 3 ("
    program.symlink_to("/bin/sleep")
    before = time.monotonic()
    with subprocess.Popen([program, "60"]) as process:
        after = time.monotonic()
        time.sleep(0.3)
        youngest = time.monotonic() - after
        age = seconds_since_start(process.pid)
        oldest = time.monotonic() - before
        process.kill()
    assert youngest - 0.02 < age < oldest + 0.02, "the kernel counts hundredths"


HOLDS = """\
import mmap, os, sys
held = mmap.mmap(-1, 64 << 20)
for at in range(0, len(held), 4096):
    held[at] = 1
if not os.fork():
    sum(held[at] for at in range(0, len(held), 4096))
    freed = bytearray(b"x" * (32 << 20))
    del freed
    print("ready", flush=True)
sys.stdin.read()
"""


def test_shared_memory_counts_once_and_what_was_given_back_too() -> None:
    """64 MiB that two processes share, and 32 MiB and their copy that one of them had for a moment."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        found = memory_mb(process.pid)
        process.stdin.close()
    own = memory_mb(os.getpgrp())
    assert found is not None and 128 * 1.048576 < found < 150 * 1.048576
    assert own is not None and own != found, "the group of the tests is another"


def put(proc: Path, pid: int, group: int, memory: str, pss: str = "") -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (some (name) 7) S 1 {group} {group} 0 -1 4194560")
    (proc / str(pid) / "status").write_text(f"Name:\tsome\nThreads:\t5\n{memory}")
    if pss:
        (proc / str(pid) / "smaps_rollup").write_text(f"0-1 ---p 0 00:00 0  [rollup]\n{pss}")


def test_the_memory_of_a_group_by_hand(tmp_path: Path) -> None:
    put(tmp_path, 7, 7, "VmHWM:\t 5000 kB\nVmRSS:\t 4000 kB\n", "Rss: 4000 kB\nPss: 3000 kB\n")
    assert memory_mb(7, tmp_path) == pytest.approx(4.096)
    put(tmp_path, 8, 7, "VmHWM:\t 900 kB\nVmRSS:\t 800 kB\n")  # the kernel tells no PSS
    assert memory_mb(7, tmp_path) == pytest.approx(4.096 + 0.9216)
    put(tmp_path, 9, 9, "VmHWM:\t 7000 kB\nVmRSS:\t 7000 kB\n")  # another group
    put(tmp_path, 10, 7, "")  # has ended, and nobody has asked for its exit code
    (tmp_path / "11").mkdir()  # gone meanwhile
    assert memory_mb(7, tmp_path) == pytest.approx(4.096 + 0.9216)
    assert memory_mb(9, tmp_path) == pytest.approx(7.168)
    put(tmp_path, 12, 12, "VmRSS:\t 800 kB\n")  # a kernel that tells no peak
    assert memory_mb(12, tmp_path) is None


@contextmanager
def metrics(text: str) -> Iterator[str]:
    """The address of a server that answers so where Triton tells its metrics."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/metrics" else b"")

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ROWS = """\
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 85899345920
"""
USED = 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-%d"} %s\n'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (ROWS + USED % (1, "1234567890"), 1234.56789),
        (ROWS + USED % (1, "1.5e+09") + USED % (2, "500000000.000000"), 2000),
        (ROWS + USED % (1, "0"), None),
        (ROWS, None),
        ("", None),
    ],
)
def test_the_memory_of_the_gpus(text: str, wanted: float | None) -> None:
    with metrics(text) as address:
        assert gpu_memory_mb(address) == wanted


def test_a_server_without_metrics() -> None:
    assert gpu_memory_mb("127.0.0.1:9") is None


def test_the_ceiling_of_the_generator(tmp_path: Path) -> None:
    found = measure_ceiling(tmp_path)
    assert found["throughput_per_s"] == max(one["throughput_per_s"] for one in found["levels"])
    assert found["throughput_per_s"] > 300
    assert json.dumps(found, allow_nan=False)


# ---- the loop itself, against a server that is a function ------------------------------------------
def load(send: Any, concurrency: int, seconds: tuple[float, float], counts: tuple[int, int]) -> Any:
    return asyncio.run(drive(send, [b"a", b"b", b"c"], concurrency, seconds, counts))


def test_the_loop_keeps_so_many_in_flight() -> None:
    now, seen = 0, []

    async def send(request: bytes) -> bytes:
        nonlocal now
        now += 1
        seen.append(now)
        await asyncio.sleep(0.01)
        now -= 1
        return request

    answers, seconds = load(send, 5, (0.2, 9.0), (10, 1000))
    assert max(seen) == 5
    assert 0.2 <= seconds < 2
    assert all(answer.content == [b"a", b"b", b"c"][answer.place] for answer in answers)
    assert all(0.009 < answer.took < 2 for answer in answers)
    later = [answer for answer in answers if answer.at > seconds]
    assert len(later) <= 4, "only what was in flight when there were enough"


@pytest.mark.parametrize(
    ("seconds", "counts", "wanted"),
    [
        ((0.0, 9.0), (40, 1000), range(40, 41)),  # at least so many
        ((9.0, 9.0), (0, 60), range(60, 61)),  # at most so many
        ((0.1, 0.1), (500, 1000), range(3, 300)),  # no longer than that
    ],
)
def test_the_bounds_of_a_window(
    seconds: tuple[float, float], counts: tuple[int, int], wanted: range
) -> None:
    async def send(request: bytes) -> bytes:
        await asyncio.sleep(0.001)
        return request

    answers, end = load(send, 2, seconds, counts)
    assert sum(answer.at <= end for answer in answers) in wanted


@pytest.mark.parametrize(("requests", "bounded"), [(298, False), (299, True)])
def test_the_bounds_are_those_of_the_window(
    monkeypatch: pytest.MonkeyPatch, requests: int, bounded: bool
) -> None:
    """Of 299, the bound of p99 is the largest; that of the median stands around it."""

    async def connect(*_: Any) -> Any:
        async def send(request: bytes) -> bytes:
            await asyncio.sleep(0.0005)
            return request

        return send, lambda: asyncio.sleep(0)

    monkeypatch.setattr(measure_served, "connect", connect)
    monkeypatch.setattr(measure_served, "SECONDS", (0.0, 60.0))
    monkeypatch.setattr(measure_served, "REQUESTS", (requests, requests))
    answers, level = asyncio.run(hold(None, "m", [b"a"], 1))  # type: ignore[arg-type]
    took = np.sort([answer.took for answer in answers[-requests:]]) * 1e3
    assert level["requests"] == requests
    assert level["latency_p99_upper_ms"] == (took[-1] if bounded else None)
    assert level["latency_p50_interval_ms"] == (took[requests - 167], took[166])


@pytest.mark.parametrize(
    ("throughputs", "levels"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], 4),  # never grows: 1, 2, 4, and once more to be sure
        ([1, 2, 4, 8, 16, 32, 64, 128], 7),  # to the end
        ([1, 2, 4, 3, 8, 8.1, 8.2, 9], 7),  # one bad level does not end it
        ([1, 2, 4, 4.1, 4.15, 9, 9, 9], 5),
    ],
)
def test_it_climbs_until_throughput_stops_growing(
    throughputs: list[float], levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(throughputs)

    async def hold(*_: Any) -> Any:
        return [], {"throughput_per_s": next(given)}

    class Named:
        name = "m"

    monkeypatch.setattr(measure_served, "hold", hold)
    monkeypatch.setattr(measure_served, "read_counters", lambda *_: None)
    monkeypatch.setattr(measure_served, "counted", lambda *_: {})
    assert len(list(climb(None, Named(), []))) == levels  # type: ignore[arg-type]


def test_the_pool_is_spread_over_the_data_and_bounded(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.case.read_case import read_case
    from scripts.triton.client import Model

    store(toy)
    data = Samples(read_case(toy.toml), toy.samples)
    model = Model("m", "python", {"x": 1}, "output")
    indices, requests = pool(model, data)
    assert indices.tolist() == list(range(61))
    assert inputs()[5].tobytes() in requests[5]
    monkeypatch.setattr(measure_served, "POOL_BYTES", 10 * len(requests[0]))
    indices, requests = pool(model, data)
    assert len(requests) == 10 and indices[0] == 0 and indices[-1] == 60
    monkeypatch.setattr(measure_served, "POOL_BYTES", 1)
    assert len(pool(model, data)[1]) == 1
    assert linear(inputs()).shape == (61, 1)


def test_the_thread_that_waits_for_answers_outlives_its_connection() -> None:
    """gRPC ends it with the last connection otherwise, and now and then waits for that for ever."""
    server = Server("", "127.0.0.1:9", "", False, "", Path("log"), None)  # type: ignore[arg-type]

    async def once() -> None:
        _, close = await connect(server, "model")
        await close()

    for _ in range(3):
        asyncio.run(once())
    assert [one for one in threading.enumerate() if "_poll_wrapper" in one.name]
