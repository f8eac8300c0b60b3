"""The preflight without a Docker daemon: every sentence, from hand-made answers and planted commands."""

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.doctor import check_machine as doctor
from scripts.doctor.check_machine import container_checks, port_check
from scripts.doctor.checks import (
    FAIL,
    NOTE,
    OK,
    Check,
    capability_check,
    daemon_check,
    disk_check,
    driver_check,
    gpu_checks,
    python_check,
    read_image,
    runtime_check,
    tensorrt_check,
)
from tests.toy_case import SLIP

ROOT = Path(__file__).resolve().parents[2]
HERE = os.uname().nodename
L4 = ("NVIDIA L4", "580.95.05", "8.9")
GOOD = "NVIDIA L4, 580.95.05, 8.9\n"


def marks(checks: list[Check]) -> list[str]:
    return [check.mark for check in checks]


# ---- one line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (Check(OK, "Docker 28"), "ok    Docker 28."),
        (Check(OK, "A", "b", "Do c."), "ok    A. Needed: b."),
        (Check(NOTE, "Is it running?", "b"), "note  Is it running? Needed: b."),
        (Check(FAIL, "A", "b", "Set X=..."), "FAIL  A. Needed: b. Set X=..."),
        (Check(FAIL, "A.", "", "Do c"), "FAIL  A. Do c."),
    ],
)
def test_a_line_is_the_mark_and_whole_sentences(check: Check, line: str) -> None:
    assert str(check) == line


# ---- Python, Docker ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "missing", "line"),
    [
        ((3, 10, 0), [], "ok    Python 3.10.0. Needed: Python 3.10 or newer with venv and ensurepip."),
        (
            (3, 9, 18),
            [],
            "FAIL  Python 3.9.18. Needed: Python 3.10 or newer with venv and ensurepip. "
            "Get one, or name another Python: make PYTHON=python3.12 ...",
        ),
        (
            (3, 11, 2),
            ["ensurepip"],
            "FAIL  Python 3.11.2, no ensurepip. Needed: Python 3.10 or newer with venv and ensurepip. "
            "Install python3.11-venv (Debian, Ubuntu), or name another Python: make PYTHON=python3.12 ...",
        ),
        (
            (3, 9, 2),
            ["venv", "ensurepip"],
            "FAIL  Python 3.9.2, no venv, no ensurepip. Needed: Python 3.10 or newer with venv and "
            "ensurepip. Get one, or name another Python: make PYTHON=python3.12 ...",
        ),
    ],
)  # fmt: skip
def test_python(version: tuple[int, ...], missing: list[str], line: str) -> None:
    assert str(python_check(version, missing)) == line


# What the docker command says when it fails, in versions 20 to 29.
SILENT = [
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct "
    "and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory",
    "error during connect: command [ssh -l me -- host docker system dial-stdio] has exited with exit "
    "status 255, stderr=me@host: Permission denied (publickey).",
    "me@host: Permission denied (publickey,password).",
    'unable to resolve docker endpoint: context "nosuch": context not found',
    "no answer in 20 s",
]
FORBIDDEN = [
    "permission denied while trying to connect to the Docker daemon socket at "
    'unix:///var/run/docker.sock: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": '
    "dial unix /var/run/docker.sock: connect: permission denied",
    "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    "Got permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied",
]


@pytest.mark.parametrize("words", SILENT)
def test_a_daemon_that_does_not_answer(words: str) -> None:
    line = str(daemon_check(1, "\n", words, None))
    assert line.startswith(f"FAIL  The Docker daemon does not answer: {words}")
    assert line.endswith("a running Docker daemon. Start it: sudo systemctl start docker.")
    line = str(daemon_check(1, "\n", words, "tcp://there:2375"))
    assert line.endswith("Start it, or correct DOCKER_HOST or DOCKER_CONTEXT: tcp://there:2375.")


@pytest.mark.parametrize("words", FORBIDDEN)
def test_a_socket_that_this_user_may_not_open(words: str) -> None:
    line = str(daemon_check(1, "\n", words, "unix:///var/run/docker.sock"))
    assert line == (
        f"FAIL  This user may not use Docker: {words}. Needed: access to its socket. "
        "Run `sudo usermod -aG docker $USER` and log in again, or set up rootless Docker."
    )


def test_a_daemon_that_answers() -> None:
    line = "ok    Docker 29.0.1. Needed: a running Docker daemon."
    assert str(daemon_check(0, "29.0.1\n", "29.0.1", None)) == line


@pytest.mark.parametrize("version", ["", "\n", "<no value>\n"])
def test_an_answer_without_a_version_is_none(version: str) -> None:
    assert daemon_check(0, version, version.strip() or "nothing", None).mark == FAIL


# ---- the GPU -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "names", "driver", "mark", "words"),
    [
        ("26.07", "NVIDIA L4", "580.95.05", OK, "driver 580 or newer for release 26.07"),
        ("26.07", "NVIDIA GeForce RTX 4090", "610.43.02", OK, "NVIDIA GeForce RTX 4090, driver 610"),
        ("25.08", "NVIDIA GeForce RTX 4090", "580.1", OK, "580 or newer for release 25.08"),
        ("25.07", "NVIDIA GeForce RTX 4090", "575.51", OK, "575 or newer for release 25.07"),
        ("25.05", "NVIDIA GeForce RTX 4090", "575.51", OK, "575 or newer for release 25.05"),
        ("25.04", "NVIDIA GeForce RTX 4090", "570.86", OK, "570 or newer for release 25.04"),
        ("25.01", "NVIDIA GeForce RTX 4090", "570.86", OK, "570 or newer for release 25.01"),
        ("24.12", "NVIDIA GeForce RTX 4090", "560.35", OK, "560 or newer for release 24.12"),
        ("24.08", "NVIDIA GeForce RTX 4090", "560.35", OK, "560 or newer for release 24.08"),
        ("26.07", "NVIDIA GeForce RTX 4090", "579.9", FAIL, "or choose RELEASE=25.06 (CUDA 12)."),
        ("26.07", "NVIDIA GeForce RTX 3090", "575.57.08", FAIL, "or choose RELEASE=25.06 (CUDA 12)."),
        ("26.07", "NVIDIA GeForce RTX 3090", "572.16", FAIL, "or choose RELEASE=25.04 (CUDA 12)."),
        ("25.06", "NVIDIA GeForce RTX 3090", "565.57", FAIL, "or choose RELEASE=24.12 (CUDA 12)."),
        ("26.07", "NVIDIA GeForce RTX 3090", "550.163.01", FAIL, "Install driver 580 or newer."),
        ("26.07", "NVIDIA RTX A6000", "550.163.01", FAIL, "Install driver 580 or newer."),
        ("26.07", "NVIDIA TITAN RTX", "550.163.01", FAIL, "Install driver 580 or newer."),
        ("26.07", "NVIDIA Titan V", "550.163.01", FAIL, "Install driver 580 or newer."),
        ("26.07", "Quadro T2000", "550.163.01", FAIL, "Install driver 580 or newer."),
        ("26.07", "NVIDIA GeForce GTX 1660, NVIDIA L4", "550.163.01", FAIL, "580 or newer."),
        ("26.07", "NVIDIA H100 80GB HBM3", "555.42", FAIL, "Install driver 580 or newer."),
        ("26.07", "NVIDIA H100 80GB HBM3", "515.105", FAIL, "Install driver 580 or newer."),
        *(
            ("26.07", "NVIDIA A100-SXM4-80GB", f"{branch}.1.2", NOTE, "forward compatibility")
            for branch in (470, 525, 535, 545, 550, 560, 565, 570, 575)
        ),
        ("25.06", "Tesla T4", "470.256.02", NOTE, "It relies on forward compatibility of the image."),
        ("24.05", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is "24.05". Needed: YY.MM, 24.08 or newer'),
        ("24.07", "NVIDIA L4", "580.95.05", FAIL, "TensorRT before 10.3 is not supported"),
        ("26.13", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is "26.13"'),
        ("26.7", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is "26.7"'),
        ("latest", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is "latest"'),
        ("26.07-py3", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is "26.07-py3"'),
        ("", "NVIDIA L4", "580.95.05", FAIL, 'RELEASE is ""'),
    ],
)  # fmt: skip
def test_driver(release: str, names: str, driver: str, mark: str, words: str) -> None:
    check = driver_check(release, names, driver)
    assert check.mark == mark
    assert words in str(check)
    assert not SLIP.search(str(check)), str(check)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (["8.9"], "ok    Compute capability 8.9. Needed: 7.5 or newer for every GPU."),
        (["7.5", "12.0", "7.5"], "ok    Compute capability 12.0, 7.5. Needed: 7.5 or newer for every GPU."),
        (
            ["9.0", "7.0"],
            "FAIL  Compute capability 7.0 of GPU 1. Needed: 7.5 or newer for every GPU. "
            "Use a newer GPU, or go without: GPU=no.",
        ),
        (["", "6.1"], "FAIL  Compute capability 6.1 of GPU 1. Needed: 7.5 or newer for every GPU. "
            "Use a newer GPU, or go without: GPU=no."),
        (["8.0", ""], "note  Compute capability: nvidia-smi does not tell it. Needed: 7.5 or newer for every GPU."),
        (["[N/A]"], "note  Compute capability: nvidia-smi does not tell it. Needed: 7.5 or newer for every GPU."),
    ],
)  # fmt: skip
def test_compute_capability(told: list[str], line: str) -> None:
    gpus = [(f"GPU {i}", "580.95.05", text) for i, text in enumerate(told)]
    assert str(capability_check(gpus)) == line


def test_without_a_gpu_nothing_is_asked_of_one() -> None:
    assert [str(one) for one in gpu_checks(False, "20.01", [], "x")] == [
        "note  No GPU is used (GPU=no)."
    ]
    listed = [
        ("NVIDIA L4", "470.1", "3.5"),
        ("Tesla T4", "470.1", "7.5"),
        ("NVIDIA L4", "470.1", ""),
    ]
    assert [str(one) for one in gpu_checks(False, "20.01", listed, "")] == [
        "note  No GPU is used (GPU=no), though nvidia-smi lists NVIDIA L4, Tesla T4."
    ]


@pytest.mark.parametrize(
    ("runtimes", "tool", "mark"),
    [
        (["runc", "nvidia"], None, OK),
        (["runc"], "/usr/bin/nvidia-ctk", OK),
        (["runc"], None, FAIL),
        ([], None, FAIL),
    ],
)
def test_the_container_toolkit(runtimes: list[str], tool: str | None, mark: str) -> None:
    check = runtime_check(runtimes, tool)
    assert check.mark == mark
    if mark == FAIL:
        assert str(check).endswith(
            "Install nvidia-container-toolkit, run "
            "`sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker."
        )


# ---- the disk, the images ------------------------------------------------------------------------


def free(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    usage = shutil.disk_usage("/")._replace(free=int(gigabytes * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize(
    ("missing", "gigabytes", "line"),
    [
        (["pytorch", "tensorrt", "tritonserver", "client"], 72,
         "ok    72 GB free in {}. Needed: about 72 GB for pytorch, tensorrt, tritonserver, client (estimated)."),
        (["tensorrt"], 11.6,
         "FAIL  12 GB free in {}. Needed: about 12 GB for tensorrt (estimated). "
         "Make room (`docker system df` shows what Docker holds), or move Docker's data root."),
        ([], 0, "ok    0 GB free in {}. Needed: nothing."),
    ],
)  # fmt: skip
def test_disk(
    missing: list[str], gigabytes: float, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, gigabytes)
    info = {"Name": HERE, "DockerRootDir": str(tmp_path)}
    assert str(disk_check(missing, info, HERE)) == line.format(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("docker-desktop", "/"), (HERE, "/no/such/folder"), (HERE, None), (None, "/")],
)
def test_a_disk_that_is_not_seen_from_here(name: str | None, folder: str | None) -> None:
    check = disk_check(["client"], {"Name": name, "DockerRootDir": folder}, HERE)
    assert str(check) == (
        f"note  The free space in {folder} of {name} cannot be seen from here. "
        "Needed: about 15 GB for client (estimated)."
    )


def test_the_image_store_of_docker_29_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    free(monkeypatch, 100)
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    info = {"Name": HERE, "DockerRootDir": "/elsewhere", "DriverStatus": status}
    assert "100 GB free in /var/lib/containerd." in str(disk_check([], info, HERE))
    info["DriverStatus"] = [["Backing Filesystem", "extfs"]]
    assert "100 GB free in /elsewhere." in str(disk_check([], info, HERE))


def inspected(**changes: Any) -> str:
    facts = {"Id": "sha256:0123456789abcdef", "RepoDigests": [], "Config": {"Env": None}}
    return json.dumps(facts | changes)


def test_an_image_is_described_by_its_id_digest_and_tensorrt() -> None:
    assert read_image("a:1", inspected()) == {
        "reference": "a:1",
        "id": "sha256:0123456789abcdef",
        "digest": None,
        "tensorrt": None,
    }
    variables = ["PATH=/bin", "EMPTY=", "MY_TRT_VERSION=1", "TRT_VERSION=11.1.0.106", "A=b=c"]
    digests = ["a@sha256:aa", "b@sha256:bb"]
    image = read_image("a:1", inspected(RepoDigests=digests, Config={"Env": variables}))
    assert (image["digest"], image["tensorrt"]) == ("a@sha256:aa", "11.1.0.106")
    assert read_image("a:1", inspected(RepoDigests=None, Config={}))["digest"] is None


@pytest.mark.parametrize(
    ("builder", "server", "line"),
    [
        ("11.1.0.106", "11.1.0.106",
         "ok    TensorRT 11.1.0.106 in tensorrt, 11.1.0.106 in tritonserver. Needed: the same TensorRT in both images."),
        ("11.1.0.106", "11.1.0.107",
         "FAIL  TensorRT 11.1.0.106 in tensorrt, 11.1.0.107 in tritonserver. Needed: the same TensorRT in both images. "
         "Choose a RELEASE in which they agree; 26.07 and 26.08 do."),
        (None, "11.1.0.106", "FAIL  No TRT_VERSION in the environment of a:1. "),
        ("11.1.0.106", "", "FAIL  No TRT_VERSION in the environment of b:1. "),
        (None, None, "FAIL  No TRT_VERSION in the environment of a:1 and b:1. "),
    ],
)  # fmt: skip
def test_tensorrt(builder: str | None, server: str | None, line: str) -> None:
    one, other = {"reference": "a:1", "tensorrt": builder}, {"reference": "b:1", "tensorrt": server}
    assert str(tensorrt_check(one, other)).startswith(line)


# ---- commands ------------------------------------------------------------------------------------


def plant(folder: Path, name: str, *lines: str) -> None:
    """An executable shell script."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def smi(folder: Path, csv: str, compute_cap: bool = True) -> None:
    """An nvidia-smi that lists these GPUs; an old one refuses the field compute_cap."""
    refusal = "echo 'Field \"compute_cap\" is not a valid field to query.'; echo; exit 2"
    plant(
        folder,
        "nvidia-smi",
        'case "$1" in',
        f"*compute_cap*) {':' if compute_cap else refusal};;",
        "esac",
        f"cat <<'END'\n{csv}END",
    )
    (folder / "cat").symlink_to(shutil.which("cat") or "/bin/cat")


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(*arguments: object) -> tuple[int, list[str], list[str]]:
    """The whole command: exit code, lines of standard output, lines of standard error."""
    command = [sys.executable, "-S", "-m", "scripts.doctor.check_machine", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert not [line for line in lines if SLIP.search(line)], lines
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


GPU = ("--mode", "local", "--gpu", "yes", "--release", "26.07")
DOCKER = ("--mode", "docker", "--gpu", "no", "--release", "26.07")
UNKNOWN = "note  Disk, images and containers are not checked without Docker."
NO_GPU = "note  No GPU is used (GPU=no)."


def test_only_the_standard_library_is_imported(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import scripts.doctor.check_machine;"
        "print(*{name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    command = [sys.executable, "-S", "-I", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert set(done.stdout.split()) == {"scripts", "__main__"} - set(sys.stdlib_module_names)


def test_a_python_that_is_too_old_can_still_read_it() -> None:
    ast.parse((ROOT / "scripts/doctor/check_machine.py").read_text(), feature_version=(3, 7))


def test_local_mode_needs_no_docker(bin_folder: Path) -> None:
    code, out, _ = run("--mode", "local", "--gpu", "no", "--release", "26.07")
    version = ".".join(map(str, sys.version_info[:3]))
    python = f"ok    Python {version}. Needed: Python 3.10 or newer with venv and ensurepip."
    assert (code, out) == (0, [python, NO_GPU])


def test_local_mode_without_ensurepip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)  # as Debian leaves it out
    assert doctor.examine(options(), {})[0].mark == FAIL


def options(**changes: Any) -> Any:
    """As parsed from the command line."""
    usual = {
        "mode": "local",
        "gpu": "no",
        "release": "26.07",
        "base": {},
        "ports": [],
        "pull": False,
    }
    return type("Options", (), usual | changes)


def test_no_docker_command(bin_folder: Path) -> None:
    code, out, _ = run(*DOCKER)
    missing = (
        "FAIL  There is no docker command. Needed: Docker Engine. Install it "
        "(https://docs.docker.com/engine/install), or go without: MODE=local."
    )
    assert (code, out) == (1, [missing, NO_GPU, UNKNOWN])


@pytest.fixture
def docker(bin_folder: Path) -> Path:
    """The real docker command on the PATH, and nothing else."""
    found = shutil.which("docker", path=os.defpath + ":/usr/local/bin")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no docker command here")
    (bin_folder / "docker").symlink_to(found)
    return bin_folder


@pytest.mark.parametrize("host", ["unix:///no/such.sock", "tcp://127.0.0.1:9", "odd://host"])
def test_no_daemon_behind_docker_host(
    host: str, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    code, out, _ = run(*DOCKER)
    assert (code, len(out), out[1:]) == (1, 3, [NO_GPU, UNKNOWN])
    assert out[0].startswith("FAIL  The Docker daemon does not answer: ")
    assert host in out[0].split(" Needed: ")[0], "docker's own words are kept"
    assert out[0].endswith(f"Start it, or correct DOCKER_HOST or DOCKER_CONTEXT: {host}.")


def test_a_docker_context_that_does_not_exist(
    docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    code, out, _ = run(*DOCKER)
    assert code == 1
    assert 'context "nosuch"' in out[0] and out[0].endswith("DOCKER_CONTEXT: nosuch.")


def test_preflight_without_a_daemon_writes_nothing(
    docker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    file = tmp_path / "preflight.json"
    file.write_text("an earlier one")
    before = set(tmp_path.iterdir())
    code, out, err = run(*DOCKER, "--base", "client=a:1", "--pull", "--out", file)
    assert (code, out, len(err)) == (1, [], 1), "only what failed, on standard error"
    assert err[0].startswith("FAIL  The Docker daemon does not answer: ")
    assert (file.read_text(), set(tmp_path.iterdir())) == ("an earlier one", before)


def test_a_docker_that_hangs_is_left_alone(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    sleep = shutil.which("sleep", path=os.defpath)
    plant(bin_folder, "docker", f'[ "$1" = info ] && exec {sleep} 60', "echo 28.2.2")
    start = time.monotonic()
    checks = doctor.examine(options(mode="docker"), {})
    assert time.monotonic() - start < 10
    assert str(checks[0]).startswith(
        "FAIL  The Docker daemon does not answer: no answer in 0.2 s. "
    )
    assert marks(checks) == [FAIL, NOTE, NOTE]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["echo first >&2", "echo last >&2", "echo out"], "last"),
        (["echo out"], "out"),
        (["echo 'docker: no such thing' >&2", "echo >&2", "echo \"Run 'docker run --help' for more\" >&2"],
         "docker: no such thing"),
        (["echo out", "echo 'WARNING: Error loading config file: permission denied' >&2"], "out"),
        ([], "nothing"),
        (["printf '\\377 is no UTF-8' >&2"], "\N{REPLACEMENT CHARACTER} is no UTF-8"),
    ],
)  # fmt: skip
def test_the_last_words_of_a_command(bin_folder: Path, lines: list[str], words: str) -> None:
    plant(bin_folder, "speak", *lines, "exit 3")
    assert doctor.run("speak")[::2] == (3, words)


def test_a_command_that_is_not_there() -> None:
    assert doctor.run("no-such-command") == (127, "", "there is no such command")


# ---- nvidia-smi ----------------------------------------------------------------------------------


def test_a_good_gpu(bin_folder: Path) -> None:
    smi(bin_folder, GOOD * 2)
    code, out, _ = run(*GPU)
    assert (code, out[1:]) == (
        0,
        [
            "ok    NVIDIA L4, driver 580.95.05. Needed: driver 580 or newer for release 26.07.",
            "ok    Compute capability 8.9. Needed: 7.5 or newer for every GPU.",
        ],
    )


def test_an_old_driver_of_a_geforce(bin_folder: Path) -> None:
    smi(bin_folder, "NVIDIA GeForce RTX 3090, 575.57.08, 8.6\n")
    code, out, _ = run(*GPU)
    assert (code, out[1]) == (
        1,
        "FAIL  NVIDIA GeForce RTX 3090, driver 575.57.08. Needed: driver 580 or newer for release "
        "26.07. Install driver 580 or newer, or choose RELEASE=25.06 (CUDA 12).",
    )


def test_the_release_that_the_advice_names_is_accepted(bin_folder: Path) -> None:
    smi(bin_folder, "NVIDIA GeForce RTX 3090, 575.57.08, 8.6\n")
    assert run(*GPU[:-1], "25.06")[0] == 0


def test_an_old_driver_of_a_data_centre_gpu_is_a_note(bin_folder: Path) -> None:
    smi(bin_folder, "Tesla T4, 470.256.02\n", compute_cap=False)
    code, out, _ = run(*GPU)
    assert (code, out[1:]) == (
        0,
        [
            "note  Tesla T4, driver 470.256.02. Needed: driver 580 or newer for release 26.07. "
            "It relies on forward compatibility of the image.",
            "note  Compute capability: nvidia-smi does not tell it. Needed: 7.5 or newer for every GPU.",
        ],
    )


def test_a_gpu_that_is_too_old(bin_folder: Path) -> None:
    smi(bin_folder, GOOD + "Tesla V100-SXM2-16GB, 580.95.05, 7.0\n")
    code, out, _ = run(*GPU)
    assert (code, out[2]) == (
        1,
        "FAIL  Compute capability 7.0 of Tesla V100-SXM2-16GB. Needed: 7.5 or newer for every GPU. "
        "Use a newer GPU, or go without: GPU=no.",
    )


def test_a_release_that_is_not_supported(bin_folder: Path) -> None:
    smi(bin_folder, GOOD)
    code, out, _ = run(*GPU[:-1], "24.05")
    assert (code, out[1]) == (
        1,
        'FAIL  RELEASE is "24.05". Needed: YY.MM, 24.08 or newer: TensorRT before 10.3 is not '
        "supported. Try RELEASE=26.07.",
    )


def test_no_nvidia_smi(bin_folder: Path) -> None:
    code, out, _ = run(*GPU)
    assert (code, out[1:]) == (
        1,
        [
            "FAIL  nvidia-smi lists no GPU: there is no such command. Needed: a GPU (GPU=yes). "
            "Install or repair NVIDIA's driver, or go without: GPU=no."
        ],
    )


def test_nvidia_smi_that_fails_is_not_believed(bin_folder: Path) -> None:
    plant(bin_folder, "nvidia-smi", "echo 'NVIDIA L4, 580.95.05, 8.9'", "echo broken >&2", "exit 9")
    code, out, _ = run(*GPU)
    assert code == 1
    assert out[1].startswith("FAIL  nvidia-smi lists no GPU: broken. ")


@pytest.mark.parametrize("code", [0, 9])
def test_nvidia_smi_that_lists_nothing(bin_folder: Path, code: int) -> None:
    words = "Failed to initialize NVML: Driver/library version mismatch"
    plant(bin_folder, "nvidia-smi", f"echo '{words}'", f"exit {code}")
    done = run(*GPU)
    assert done[0] == 1
    assert done[1][1].startswith(f"FAIL  nvidia-smi lists no GPU: {words}. ")


def test_a_gpu_that_is_not_wanted(bin_folder: Path) -> None:
    smi(bin_folder, GOOD)
    code, out, _ = run("--mode", "local", "--gpu", "no", "--release", "26.07")
    line = "note  No GPU is used (GPU=no), though nvidia-smi lists NVIDIA L4."
    assert (code, out[1]) == (0, line)


# ---- ports ---------------------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[int]:
    """A port of 127.0.0.1 on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def unused() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_ports(bin_folder: Path, busy: int) -> None:
    first, last = unused(), unused()
    arguments = ("--mode", "local", "--gpu", "no", "--release", "26.07")
    code, out, _ = run(*arguments, "--ports", first, busy, last)
    assert (code, out[2:]) == (
        1,
        [
            f"ok    Port {first} (HTTP) is free.",
            f"FAIL  Port {busy} (gRPC): Address already in use. Needed: a free port. Stop what listens "
            "there, or choose others: HTTP_PORT=..., GRPC_PORT=..., METRICS_PORT=...",
            f"ok    Port {last} (metrics) is free.",
        ],
    )


def test_a_port_of_all_addresses_is_busy_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert port_check(server.getsockname()[1], "HTTP").mark == FAIL


def test_a_number_that_no_port_has() -> None:
    line = str(port_check(80000, "HTTP"))
    assert line.startswith(
        "FAIL  Port 80000 (HTTP): bind(): port must be 0-65535. Needed: a free port."
    )


def test_a_port_that_was_just_closed_is_free(busy: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # closed on this side first: TIME_WAIT
    assert port_check(port, "HTTP").mark == OK


# ---- pulling -------------------------------------------------------------------------------------
# A registry cannot be had here: a planted docker has the images once it was told to pull them.


@pytest.fixture
def registry(bin_folder: Path) -> Path:
    """A docker whose pull takes half a second."""
    for name in ("sleep", "touch"):
        (bin_folder / name).symlink_to(shutil.which(name, path=os.defpath) or "")
    image = inspected(RepoDigests=["a@sha256:aa"], Config={"Env": ["TRT_VERSION=11.1.0.106"]})
    info = json.dumps({"Name": HERE, "DockerRootDir": "/nowhere"})
    lines = [
        f'pulled="{bin_folder}/$(echo "$2$5" | {shutil.which("tr", path=os.defpath)} /: __)"',
        'case "$1" in',
        "version) echo 28.2.2 ;;",
        f"info) echo '{info}' ;;",
        f"image) if [ -e \"$pulled\" ]; then echo '{image}'; else echo 'No such image' >&2; exit 1; fi ;;",
        'pull) echo "Downloading"; sleep 0.5; touch "${pulled%/*}/inspect${pulled##*/}"; echo "Done" ;;',
        "esac",
    ]  # fmt: skip
    plant(bin_folder, "docker", *lines)
    return bin_folder


TWO = ("--base", "client=a:1", "--base", "tensorrt=b:1")


def test_absent_images_are_pulled(registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "preflight.json"
    code, out, err = run(*DOCKER, *TWO, "--pull", "--out", file)
    assert (code, out) == (0, [f"{file}: ready for release 26.07 with client, tensorrt"])
    assert err == ["Downloading", "Done"] * 2, "docker's progress, on standard error"
    text = file.read_text()
    found = {"id": "sha256:0123456789abcdef", "digest": "a@sha256:aa", "tensorrt": "11.1.0.106"}
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "release": "26.07",
        "bases": {
            "client": {"reference": "a:1", **found},
            "tensorrt": {"reference": "b:1", **found},
        },
    }
    assert [path.name for path in tmp_path.iterdir() if path != registry] == [file.name]
    assert run(*DOCKER, *TWO, "--pull", "--out", file)[2] == [], "the second time nothing is pulled"


def test_make_doctor_pulls_nothing(registry: Path) -> None:
    before = set(registry.iterdir())
    code, out, _ = run(*DOCKER, *TWO)
    assert code == 0
    assert out[3:] == [f"note  {one} is not pulled yet; the first run does that." for one in ("a:1", "b:1")]  # fmt: skip
    assert set(registry.iterdir()) == before


def test_a_pull_may_take_long(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.3)
    assert doctor.ask_image("a:1", pull=True)[0].mark == OK


def test_an_image_that_is_not_here_after_a_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(0, "", "Done"), (1, "", "No such image: a:1")])
    monkeypatch.setattr(doctor, "run", lambda *_, **__: next(answers))
    check, image = doctor.ask_image("a:1", pull=True)
    assert (check.mark, image) == (FAIL, None)


def test_ctrl_c_while_it_pulls(registry: Path, tmp_path: Path) -> None:
    file = tmp_path / "preflight.json"
    command = [
        sys.executable,
        "-m",
        "scripts.doctor.check_machine",
        *DOCKER,
        *TWO,
        "--pull",
        "--out",
        str(file),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr and process.stderr.readline() == "Downloading\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in rest
    assert not file.exists()


def test_a_file_that_cannot_be_renamed_into_place_leaves_the_earlier_one(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "preflight.json"
    file.write_text("an earlier one")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    arguments = ["doctor", *DOCKER, *TWO, "--pull", "--out", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(PermissionError):
        doctor.main()
    assert file.read_text() == "an earlier one"


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pull", "--base", "client=a:1"),
        ("--out", "x.json", "--base", "client=a:1"),
        ("--pull", "--out", "x.json"),
        ("--base", "triton=a:1"),
        ("--ports", "8000"),
    ],
)
def test_a_wrong_command_line(arguments: tuple[str, ...], bin_folder: Path) -> None:
    code, out, err = run(*DOCKER, *arguments)
    assert (code, out) == (2, [])
    assert "error: " in err[-1]


def test_a_failure_pulls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is noticed before 25 GB are pulled; a pull that fails is the last one."""
    commands: list[tuple[str, ...]] = []

    def record(*command: str, **_: Any) -> tuple[int, str, str]:
        commands.append(command)
        return 1, "", "No such image: x" if command[1] == "image" else "the registry's words"

    monkeypatch.setattr(doctor, "run", record)
    info = {"Name": HERE, "DockerRootDir": "/"}
    asked = options(base={"pytorch": "a:1", "tensorrt": "b:1"}, pull=True)
    free(monkeypatch, 1)
    assert marks(container_checks(asked, False, info, {})) == [FAIL, NOTE, NOTE]
    assert {command[1] for command in commands} == {"image"}
    free(monkeypatch, 100)
    checks = container_checks(asked, False, info, {})
    assert marks(checks) == [OK, FAIL, NOTE]
    assert "a:1 is not to be had: the registry's words. Needed: " in str(checks[1])
    assert [command for command in commands if command[1] == "pull"] == [("docker", "pull", "a:1")]
