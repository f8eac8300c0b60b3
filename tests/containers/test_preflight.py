"""The preflight against a real Docker daemon. Only nvidia-smi is planted: there is no GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.containers.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
TRT = "11.1.0.106"
ABSENT = "registry.invalid/nvidia/pytorch:26.07-py3"  # .invalid never has an address
LISTS_A_GPU = {"nvidia-smi": 'echo "GPU 0: NVIDIA L4 (UUID: GPU-1)"'}
GOOD_GPU = [
    "ok    NVIDIA L4, driver 580.95.05. Needed: driver 580 or newer for release 26.07.",
    "ok    Compute capability 8.9. Needed: 7.5 or newer for every GPU.",
]


class Host:
    """A machine on whose PATH stand docker, and what `plant` adds."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.bin = engine, folder / "bin"
        self.bin.mkdir()
        (self.bin / "docker").symlink_to(shutil.which("docker") or "")
        self.file = folder / "preflight.json"

    def plant(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def doctor(self, *arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
        """The whole command: exit code, lines of standard output, lines of standard error."""
        usual = ("-m", "scripts.doctor.check_machine", "--mode", "docker", "--release", "26.07")
        done = subprocess.run(
            [sys.executable, *usual, *arguments],
            cwd=ROOT,
            env=self.engine.environment | {"PATH": str(self.bin)} | environment,
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def preflight(self, *arguments: str) -> tuple[int, list[str], list[str]]:
        return self.doctor(*arguments, "--pull", "--out", str(self.file))


@pytest.fixture
def host(engine: Engine, tmp_path: Path) -> Host:
    """A machine with a GPU driver and the container toolkit."""
    host = Host(engine, tmp_path)
    host.plant("nvidia-smi", "echo 'NVIDIA L4, 580.95.05, 8.9'")
    return host


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, str]:
    """The id of each imported image."""
    return {
        "test/pytorch:1": engine.tiny("test/pytorch:1", {"TRT_VERSION": TRT}, LISTS_A_GPU),
        "test/tensorrt:1": engine.tiny("test/tensorrt:1", {"TRT_VERSION": TRT}),
        "test/triton:1": engine.tiny("test/triton:1", {"TRT_VERSION": TRT}),
        "test/triton:2": engine.tiny("test/triton:2", {"TRT_VERSION": "11.2.1.2"}),
        "test/triton:none": engine.tiny("test/triton:none"),
    }


def bases(**references: str) -> list[str]:
    return [text for name, one in references.items() for text in ("--base", f"{name}={one}")]


PAIR = {"tensorrt": "test/tensorrt:1", "tritonserver": "test/triton:1"}
ALL = {"pytorch": "test/pytorch:1", **PAIR}


def test_all_is_well(host: Host, images: dict[str, str]) -> None:
    code, out, err = host.doctor("--gpu", "yes", *bases(**ALL))
    assert (code, err) == (0, [])
    assert re.fullmatch(r"ok    Docker [\d.]+\S*\. Needed: a running Docker daemon\.", out[0])
    assert out[1:3] == GOOD_GPU
    assert re.fullmatch(
        r"ok    Docker's runtimes: .*nvidia, runc\. Needed: NVIDIA's container toolkit\.", out[3]
    )
    data = f"{host.engine.folder}/data"
    assert re.fullmatch(rf"ok    \d+ GB free in {data}\. Needed: nothing\.", out[4])
    assert out[5:] == [
        *(f"ok    {one} is here, {images[one][:19]}." for one in ALL.values()),
        f"ok    TensorRT {TRT} in tensorrt, {TRT} in tritonserver. "
        "Needed: the same TensorRT in both images.",
    ]


def test_the_preflight_writes_what_the_base_images_are(host: Host, images: dict[str, str]) -> None:
    host.file.write_text("an earlier one")
    code, out, err = host.preflight("--gpu", "yes", *bases(**ALL))
    text = f"{host.file}: ready for release 26.07 with pytorch, tensorrt, tritonserver"
    assert (code, out, err) == (0, [text], [])
    described = {
        name: {"reference": one, "id": images[one], "digest": None, "tensorrt": TRT}
        for name, one in ALL.items()
    }
    assert json.loads(host.file.read_text()) == {"release": "26.07", "bases": described}
    assert sorted(os.listdir(host.file.parent)) == ["bin", "preflight.json"]


def test_without_a_gpu_neither_tensorrt_nor_the_toolkit_matters(
    host: Host, images: dict[str, str]
) -> None:
    (host.bin / "nvidia-smi").unlink()
    pair = bases(tensorrt="test/tensorrt:1", tritonserver="test/triton:2")
    code, out, _ = host.doctor("--gpu", "no", *pair)
    assert (code, out[1], len(out)) == (0, "note  No GPU is used (GPU=no).", 5)
    assert host.preflight("--gpu", "no", *bases(client="test/triton:none"))[0] == 0
    assert json.loads(host.file.read_text())["bases"]["client"]["tensorrt"] is None


def test_another_user_may_not_use_the_socket(
    host: Host, images: dict[str, str], tmp_path: Path
) -> None:
    other = f"{shutil.which('setpriv')} --reuid 65534 --clear-groups"
    docker = shutil.which("docker")
    host.plant("docker", f'exec {other} {docker} "$@"')
    code, out, _ = host.doctor("--gpu", "no", *bases(**PAIR))
    assert (code, len(out)) == (1, 3)
    assert re.fullmatch(
        r"FAIL  This user may not use Docker: .*permission denied.* Needed: access to its socket\. "
        r"Run `sudo usermod -aG docker \$USER` and log in again, or set up rootless Docker\.",
        out[0],
    )


@pytest.mark.parametrize(
    ("server", "line"),
    [
        (
            "test/triton:2",
            f"FAIL  TensorRT {TRT} in tensorrt, 11.2.1.2 in tritonserver. Needed: the same TensorRT "
            "in both images. Choose a RELEASE in which they agree; 26.07 and 26.08 do.",
        ),
        (
            "test/triton:none",
            "FAIL  No TRT_VERSION in the environment of test/triton:none. Needed: the same TensorRT "
            "in both images. Choose a RELEASE in which they agree; 26.07 and 26.08 do.",
        ),
    ],
)
def test_another_tensorrt_in_the_server(
    server: str, line: str, host: Host, images: dict[str, str]
) -> None:
    pair = bases(tensorrt="test/tensorrt:1", tritonserver=server)
    code, out, _ = host.doctor("--gpu", "yes", *pair)
    assert (code, out[-1]) == (1, line)
    assert host.preflight("--gpu", "yes", *pair) == (1, [], [line])
    assert not host.file.exists()


def test_an_absent_image_is_a_note(host: Host, images: dict[str, str]) -> None:
    code, out, err = host.doctor("--gpu", "yes", *bases(pytorch=ABSENT, **PAIR))
    assert (code, err) == (0, [])
    assert f"note  {ABSENT} is not pulled yet; the first run does that." in out
    disk = next(line for line in out if " GB free in " in line)
    assert disk.endswith("Needed: about 25 GB for pytorch (estimated).")


def test_tensorrt_is_not_compared_before_both_are_here(host: Host, images: dict[str, str]) -> None:
    pair = bases(tensorrt="test/tensorrt:1", tritonserver=ABSENT)
    code, out, _ = host.doctor("--gpu", "yes", *pair)
    assert code == 0
    assert not [line for line in out if "TensorRT" in line]


def test_a_pull_that_fails_keeps_dockers_words_and_writes_nothing(
    host: Host, images: dict[str, str]
) -> None:
    host.file.write_text("an earlier one")
    code, out, err = host.preflight("--gpu", "no", *bases(pytorch=ABSENT, **PAIR))
    words = host.engine.docker("pull", ABSENT, check=False).stderr.strip()
    assert "registry.invalid" in words
    start = f"FAIL  {ABSENT} is not to be had: "
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(start)
    # The address of the name server's own port may differ from one try to the next.
    assert err[0].removeprefix(start).startswith(words.split("registry.invalid on")[0])
    assert err[0].endswith(f"Try: docker pull {ABSENT}.")
    assert host.file.read_text() == "an earlier one"
    assert sorted(os.listdir(host.file.parent)) == ["bin", "preflight.json"]


def test_nothing_is_pulled_for_a_gpu_that_cannot_be_used(host: Host) -> None:
    host.plant("nvidia-smi", "echo 'NVIDIA GeForce RTX 3090, 550.163.01, 8.6'")
    code, out, err = host.preflight("--gpu", "yes", *bases(pytorch=ABSENT))
    assert (code, out) == (1, [])
    assert err == [
        "FAIL  NVIDIA GeForce RTX 3090, driver 550.163.01. Needed: driver 580 or newer for release "
        "26.07. Install driver 580 or newer."
    ]


def test_a_name_that_cannot_be_an_image(host: Host) -> None:
    code, out, _ = host.doctor("--gpu", "no", *bases(client="UPPER:x:y"))
    assert code == 1
    assert out[-1].startswith("FAIL  UPPER:x:y is not to be had: ")
    assert "invalid reference format" in out[-1]


def test_the_runtime_nvidia_is_not_listed(engine_without_gpu: Engine, tmp_path: Path) -> None:
    host = Host(engine_without_gpu, tmp_path)
    host.plant("nvidia-smi", "echo 'NVIDIA L4, 580.95.05, 8.9'")
    code, out, _ = host.doctor("--gpu", "yes")
    assert code == 1
    assert re.fullmatch(
        r"FAIL  Docker's runtimes: .*runc\. Needed: NVIDIA's container toolkit\. Install "
        r"nvidia-container-toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker` and "
        r"restart Docker\.",
        out[3],
    )


def test_a_toolkit_of_which_the_daemon_knows_nothing(
    engine_without_gpu: Engine, tmp_path: Path
) -> None:
    host = Host(engine_without_gpu, tmp_path)
    host.plant("nvidia-smi", "echo 'NVIDIA L4, 580.95.05, 8.9'")
    host.plant("nvidia-ctk", "exit 0")
    host.engine.tiny("test/pytorch:1", programs=LISTS_A_GPU)
    code, out, err = host.preflight("--gpu", "yes", *bases(pytorch="test/pytorch:1"))
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("FAIL  nvidia-smi in test/pytorch:1: ")
    assert "could not select device driver" in err[0]
    assert not host.file.exists()


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({"nvidia-smi": "echo 'No devices were found'; exit 6"}, "No devices were found"),
        ({"nvidia-smi": "echo 'No devices were found'"}, "No devices were found"),
        ({"nvidia-smi": "echo 'GPU 0: lost'; exit 15"}, "GPU 0: lost"),
        ({}, "executable file not found"),
    ],
)
def test_a_container_that_sees_no_gpu(
    programs: dict[str, str], words: str, host: Host, images: dict[str, str]
) -> None:
    host.engine.tiny("test/blind:1", programs=programs)
    code, out, err = host.preflight("--gpu", "yes", *bases(pytorch="test/blind:1"))
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("FAIL  nvidia-smi in test/blind:1: ")
    assert words in err[0]
    assert not host.file.exists()


def test_ports_are_asked_for_in_make_doctor(host: Host) -> None:
    code, out, _ = host.doctor("--gpu", "no", "--ports", "0", "0", "0")
    assert (code, out[-1]) == (0, "ok    Port 0 (metrics) is free.")
