"""The server of perf_analyzer's step: what it says when it fails, and that no container outlives it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.copies import CALLER, Contained, containers


@pytest.fixture
def without_result(built: Contained) -> Iterator[Path]:
    """A result that is missing during a test, and is there again after it."""
    result = built.folder / "results/digits/onnx_fp32.perf.json"
    content, was = result.read_bytes(), result.stat()
    result.unlink()
    yield result
    result.write_bytes(content)
    os.chown(result, CALLER, CALLER)
    os.utime(result, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert built.make("-q", "all").returncode == 0


def test_a_server_that_cannot_load_says_why_and_is_removed(built: Contained) -> None:
    path = built.folder / "model_repository/digits_onnx_fp16/config.pbtxt"
    good, was = path.read_bytes(), path.stat()
    before = (built.folder / "results/digits/onnx_fp16.perf.json").read_bytes()
    path.write_bytes(good.replace(b'backend: "onnxruntime"', b'backend: "nonesuch"'))
    os.utime(path)
    done = built.make("results/digits/onnx_fp16.perf.json", "--assume-old=results/digits/samples.json",
                      "--assume-old=results/digits/served_latency.json")  # fmt: skip
    path.write_bytes(good)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert done.returncode == 2
    assert "tritonserver ended" in done.stderr and "nonesuch" in done.stderr
    assert (built.folder / "results/digits/onnx_fp16.perf.json").read_bytes() == before
    assert containers(built.engine) == []
    assert built.make("-q", "all").returncode == 0


def test_a_server_that_dies_while_it_is_asked_has_the_last_word(
    built: Contained, without_result: Path
) -> None:
    make = subprocess.Popen(
        built.command("results/digits/onnx_fp32.perf.json"), cwd=built.folder, env=built.env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for _ in range(600):
        running = built.engine.docker("ps", "--format", "{{.Names}}").stdout.split()
        if any(name.endswith("-client") for name in running):
            break
        time.sleep(0.1)
    [server] = [name for name in running if not name.endswith("-client")]
    built.engine.docker("exec", server, "python3", "-c", KILL)
    said, _ = make.communicate(timeout=120)
    assert make.returncode == 2, said
    assert "tritonserver ended (killed by SIGKILL)" in said, said
    assert containers(built.engine) == []
    assert not without_result.exists()


KILL = """
import os, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/exe"):
    try:
        if os.readlink(path).endswith("/tritonserver"):
            os.kill(int(path.parent.name), 9)
    except OSError:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_container_outlives_perf_analyzer_s_step(
    built: Contained, without_result: Path, number: int
) -> None:
    """With SIGTERM make alone is asked, and tells its children."""
    for wanted in (1, 2):  # while the server loads; while the client asks
        make = subprocess.Popen(
            built.command("results/digits/onnx_fp32.perf.json"), cwd=built.folder, env=built.env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # As in a terminal, also where the tests themselves run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        for _ in range(600):
            if len(containers(built.engine)) >= wanted:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the containers were not started")
        time.sleep(0.5)
        if number == signal.SIGINT:
            os.killpg(make.pid, number)
        else:
            make.send_signal(number)
        make.communicate(timeout=120)
        assert make.returncode != 0
        assert containers(built.engine) == []
        assert not without_result.exists()
        assert not list(built.folder.rglob("*.tmp"))
