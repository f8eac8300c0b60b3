"""`make serve`, promote and rollback, with the real Triton of the local mode."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from scripts.triton.model_config import read_config, to_text
from tests.project import Project, environment


def free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    numbers = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return numbers


@contextmanager
def serving(project: Project, *settings: str, ports: list[int]) -> Iterator[str]:
    """`make serve` in the copy until the block ends; what it has printed by then."""
    names = [
        f"{name}_PORT={port}" for name, port in zip(("HTTP", "GRPC", "METRICS"), ports, strict=True)
    ]
    make = subprocess.Popen(
        ["make", "serve", *names, *settings], cwd=project.folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert make.stdout is not None
    said = ""
    for line in make.stdout:
        said += line
        if line.startswith("Ctrl-C ends"):
            break
    try:
        assert "Ctrl-C ends" in said, said
        yield said
    finally:
        os.killpg(make.pid, signal.SIGINT)
        rest, _ = make.communicate(timeout=120)
        assert "Stopped." in rest or make.returncode != 0
        assert "Traceback" not in rest


def ask(project: Project, said: str) -> dict[str, float | bool]:
    """The answer to the request that was printed for curl."""
    [request] = [line for line in said.splitlines() if line.startswith("curl ")]
    answer = json.loads(subprocess.check_output(request.split(), cwd=project.folder))
    return {one["name"]: one["data"][0] for one in answer["outputs"]}


def test_the_printed_requests_give_the_right_verdict(digits: Project) -> None:
    with serving(digits, "SERVE=all", ports=free_ports()) as said:
        values = ask(digits, said)
        program = re.search(r"^\S+ - <<'END'\n.*?^END$", said, re.M | re.S)
        assert program is not None
        done = digits.run("bash", "-c", program[0])
        metrics = re.search(r"metrics +(\S+)", said)
        assert metrics is not None
        counted = subprocess.check_output(["curl", "-s", metrics[1]], text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'logit': ")
    report = json.loads((digits.folder / "results/digits/report.json").read_text())
    variant = report["recommendation"]["variant"]
    logits = np.load(digits.folder / f"results/digits/{variant}.logits.npy")
    assert values["logit"] == pytest.approx(float(logits[0]), abs=1e-5)
    assert values["threshold"] == report["recommendation"]["threshold"]
    assert values["verdict"] == bool(logits[0] >= values["threshold"])
    assert f"'verdict': {values['verdict']}" in done.stdout
    for model in ("digits_verdict", "digits_onnx_fp16", "digits_torchscript_fp32"):
        assert model in said.splitlines()[0]
        assert f'nv_inference_count{{model="{model}"' in counted


def test_two_at_once_need_two_ports(digits: Project) -> None:
    ports = free_ports()
    with serving(digits, ports=ports):
        again = digits.make("serve", f"HTTP_PORT={ports[0]}")
        assert again.returncode == 2
        assert f"The port {ports[0]} on 127.0.0.1 cannot be had" in again.stderr
        assert "HTTP_PORT=" in again.stderr
        with serving(digits, ports=free_ports()) as said:
            assert "verdict" in ask(digits, said)


def test_without_a_production_model_it_says_what_to_do(project: Project) -> None:
    done = project.make("serve")
    assert done.returncode == 2
    assert (
        "There is no production model in model_repository/digits yet. Run `make all`" in done.stderr
    )


def test_promote_and_rollback_change_what_is_served(digits: Project) -> None:
    report = digits.folder / "results/digits/report.json"
    recommended = json.loads(report.read_text())["recommendation"]["variant"]
    versions = (digits.folder / "model_repository/digits").glob("[0-9]*/")
    before = max(int(path.name) for path in versions if path.is_dir())
    other = "onnx_fp16" if recommended != "onnx_fp16" else "onnx_fp32"
    try:
        done = digits.make("promote", f"VARIANT={other}")
        assert done.returncode == 0, done.stderr
        text = (digits.folder / "results/report.md").read_text()
        assert f"**Promoted by hand to production: `{other}`**" in text[:400]
        with serving(digits, ports=free_ports()) as said:
            assert f"(version {before + 1}, " in said
            assert "logit" in ask(digits, said)
        assert digits.make("all").returncode == 0
        back = digits.make("rollback")
        assert back.returncode == 0, back.stderr
        told = f"version {before} ({recommended}) in place of {before + 1}"
        assert back.stdout == f"model_repository/digits: {told}\n"
        with serving(digits, ports=free_ports()) as said:
            assert f"(version {before}, " in said
    finally:
        done = digits.make("promote", "VARIANT=recommended")
    assert done.returncode == 0, done.stderr
    assert digits.make("all").returncode == 0
    assert json.loads(report.read_text())["promotion"] is None
    refused = digits.make("promote", "VARIANT=onnx_fp23")
    assert refused.returncode == 2
    assert "VARIANT is 'onnx_fp23'; write one of torchscript_fp32, onnx_fp32" in refused.stderr


def test_the_production_model_is_asked_after_it_was_published(digits: Project) -> None:
    found = json.loads((digits.folder / "results/digits/production.json").read_text())
    assert found["samples"] == []
    assert found["server"]["native"] is False


def test_a_production_model_that_answers_otherwise_stops_make(
    digits: Project, tmp_path: Path
) -> None:
    """The threshold of the published decision is changed behind make's back."""
    config = digits.folder / "model_repository/digits_decision/config.pbtxt"
    production = digits.folder / "results/digits/production.json"
    good, kept = config.read_text(), production.read_bytes()
    was = production.stat()
    changed = read_config(config)
    changed.parameters["threshold"].string_value = "99.0"
    config.write_text(to_text(changed))
    production.unlink()
    try:
        done = digits.make("all")
        assert done.returncode == 2
        assert "digits_verdict contradicts itself or its version: threshold" in done.stderr
        assert not production.exists()
    finally:
        config.write_text(good)
        production.write_bytes(kept)
        os.utime(production, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert digits.make("-q", "all").returncode == 0
