"""What make does in containers when something changes or fails, or Ctrl-C is pressed."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.containers.copies import CALLER, Contained, containers, free_port
from tests.project import ROOT


def test_touching_the_dockerfile_runs_every_step_again(built: Contained) -> None:
    path = built.folder / "docker/pytorch.Dockerfile"
    was = path.stat()
    path.touch()
    again = built.steps()
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert {"data.read_samples", "backends.onnxruntime.convert_fp32", "score.score_variant",
            "report.write_report"} <= again  # fmt: skip
    assert built.make("-q", "all").returncode == 0


def test_a_failing_step_keeps_its_message_and_what_was_there(built: Contained) -> None:
    labels = built.folder / "data/digits/labels.npy"
    good, was = labels.read_bytes(), labels.stat()
    before = (built.folder / "results/digits/report.json").read_bytes()
    np.save(labels, np.zeros(899, np.uint8))
    done = built.make("all")
    assert done.returncode == 2
    assert "the positive label is 1, and the labels are 0" in done.stderr
    assert re.search(r"samples\.json\] Error 1$", done.stderr, re.MULTILINE)
    assert (built.folder / "results/digits/report.json").read_bytes() == before
    assert containers(built.engine) == []
    labels.write_bytes(good)
    os.utime(labels, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert built.make("-q", "all").returncode == 0


def test_ctrl_c_leaves_no_container_and_nothing_half(built: Contained) -> None:
    later = time.time_ns()
    os.utime(built.folder / "scripts/score/measure_latency.py", ns=(later, later))
    make = subprocess.Popen(
        built.command("all"), cwd=built.folder, env=built.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(300):
        if containers(built.engine):
            break
        time.sleep(0.1)
    else:
        pytest.fail("no container was started")
    time.sleep(3)  # into the timing
    os.killpg(make.pid, signal.SIGINT)
    make.communicate(timeout=120)
    assert make.returncode != 0
    assert containers(built.engine) == []
    assert not list(built.folder.rglob("*.tmp"))
    done = built.make("all")
    assert done.returncode == 0, done.stderr
    assert "samples scored" not in done.stdout, "what was there is used"


def test_links_that_lead_out_of_the_project_work(built: Contained, folder: Path) -> None:
    elsewhere = folder
    elsewhere.mkdir()
    inputs = built.folder / "data/digits/inputs.npy"
    was = inputs.stat()
    shutil.move(inputs, elsewhere / "inputs.npy")
    inputs.symlink_to(elsewhere / "inputs.npy")
    (built.folder / "results/digits/request.json").unlink()
    done = built.make("results/digits/request.json")
    inputs.unlink()
    shutil.move(elsewhere / "inputs.npy", inputs)
    os.utime(inputs, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert done.returncode == 0, done.stdout + done.stderr
    assert built.make("-q", "all").returncode == 0


def test_a_report_of_containers_is_not_taken_for_one_of_local_mode(built: Contained) -> None:
    (built.folder / ".venv").symlink_to(ROOT / ".venv")
    done = built.run("make", "results/digits/report.json", "MODE=local", "GPU=no")
    (built.folder / ".venv").unlink()
    assert done.returncode == 2
    assert "now asked for: local, cpu" in done.stderr
    assert "make clean CASE=digits && make all CASE=digits MODE=local GPU=no" in done.stderr
    assert built.make("-q", "all").returncode == 0


def test_make_serve_in_its_container(built: Contained) -> None:
    ports = [f"{name}_PORT={free_port()}" for name in ("HTTP", "GRPC", "METRICS")]
    make = subprocess.Popen(
        built.command("serve", *ports), cwd=built.folder, env=built.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert make.stdout is not None
    said = ""
    for line in make.stdout:
        said += line
        if line.startswith("Ctrl-C ends"):
            break
    assert "native backends" in said, said
    [request] = [line for line in said.splitlines() if line.startswith("curl ")]
    answer = json.loads(subprocess.check_output(request.split(), cwd=built.folder))
    values = {one["name"]: one["data"][0] for one in answer["outputs"]}
    logits = np.load(built.folder / "results/digits/torch_fp32.logits.npy")
    assert values["verdict"] == bool(logits[0] >= values["threshold"])
    assert values["logit"] == pytest.approx(float(logits[0]), abs=0.1)
    os.killpg(make.pid, signal.SIGINT)
    rest, _ = make.communicate(timeout=120)
    assert "Stopped." in rest
    assert containers(built.engine) == []
    assert {path.lstat().st_uid for path in built.folder.rglob("*")} == {CALLER}
