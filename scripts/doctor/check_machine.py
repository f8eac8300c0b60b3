"""Check what a run needs of this machine: Docker or Python, GPU, driver, disk, base images, ports.

Runs    on the host, with the standard library alone: Make calls it before anything is installed
Usage   python3 -m scripts.doctor.check_machine --mode docker --gpu yes --release 26.07
            --base pytorch=nvcr.io/nvidia/pytorch:26.07-py3 --base ... --ports 8000 8001 8002
        With --pull --out FILE in the place of --ports: before the first container. Absent base
        images are pulled and, if nothing fails, FILE says which image each of them is.
Prints  a line for each check: ok, note or FAIL, what was found, what is needed, what to do; it ends
        with 1 after a FAIL. With --pull: what failed, on standard error, or one line if nothing did.
"""

from __future__ import annotations  # a Python that is too old gets as far as being told so

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

from scripts.doctor.checks import (
    CONFIGURE,
    FAIL,
    GIGABYTES,
    NOTE,
    OK,
    PORTS,
    Check,
    daemon_check,
    disk_check,
    failed,
    gpu_checks,
    judge,
    python_check,
    read_image,
    runtime_check,
    tensorrt_check,
)

SECONDS = 20.0  # `docker info` can hang


def run(*command: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, standard output, last words; 127 for a missing command, 124 when out of time."""
    pipe = subprocess.PIPE
    usual = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "timeout": SECONDS}
    try:
        done = subprocess.run(command, text=True, errors="replace", **{**usual, **options})
    except subprocess.TimeoutExpired as error:
        return 124, "", f"no answer in {error.timeout:g} s"
    except OSError:
        return 127, "", "there is no such command"
    hints = ("WARNING:", "Run 'docker", "See 'docker")
    lines = f"nothing\n{done.stdout or ''}\n{done.stderr}".splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith(hints)]
    return done.returncode, done.stdout or "", said[-1]


def ask_gpus() -> tuple[list[tuple[str, str, str]], str]:
    """Name, driver and compute capability (or "": old drivers cannot tell) of each; last words."""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        code, out, words = run("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
        gpus = re.findall(r"^(.+?), (\d[\d.]*)(?:, (\S+))?$", out, re.MULTILINE)
        if code == 0 and gpus:
            return gpus, ""
    return [], words


def ask_image(reference: str, pull: bool = False) -> tuple[Check, dict[str, Any] | None]:
    """A base image that is here; else a note that it is absent, or a FAIL with Docker's words."""
    code, out, words = 0, "", ""
    if pull:
        code, out, words = run("docker", "pull", reference, stdout=2, timeout=None)
    if code == 0:
        inspect = ("docker", "image", "inspect", "--format", "{{json .}}", reference)
        code, out, words = run(*inspect)
    if code == 0:
        image = read_image(reference, out)
        return Check(OK, f"{reference} is here, {image['id'][:19]}"), image
    if "no such image" in words.lower() and "invalid reference" not in words and not pull:
        return Check(NOTE, f"{reference} is not pulled yet; the first run does that"), None
    do = f"Does the registry answer, and has it this release? Try: docker pull {reference}"
    return Check(FAIL, f"{reference} is not to be had: {words}", "the image", do), None


def port_check(port: int, what: str) -> Check:
    do = "Stop what listens there, or choose others: HTTP_PORT=..., GRPC_PORT=..., METRICS_PORT=..."
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            words = getattr(error, "strerror", error)
            return Check(FAIL, f"Port {port} ({what}): {words}", "a free port", do)
    return Check(OK, f"Port {port} ({what}) is free")


def container_checks(options: Any, gpu: bool, info: Any, images: dict[str, Any]) -> list[Check]:
    """What concerns Docker once its daemon answers; `images` gets what is found of each base."""
    checks: list[Check] = []
    if gpu:
        tool = shutil.which("nvidia-container-runtime-hook") or shutil.which("nvidia-ctk")
        checks.append(runtime_check(list(info.get("Runtimes") or {}), tool))
    asked = {name: ask_image(reference) for name, reference in options.base.items()}
    missing = [name for name, (check, _) in asked.items() if check.mark == NOTE]
    checks.append(disk_check(missing, info, os.uname().nodename))
    for name, reference in options.base.items():
        if name in missing and options.pull and not failed(checks):
            asked[name] = ask_image(reference, pull=True)
        check, images[name] = asked[name]
        checks.append(check)
    if gpu and images.get("tensorrt") and images.get("tritonserver"):
        checks.append(tensorrt_check(images["tensorrt"], images["tritonserver"]))
    if gpu and options.pull and not failed(checks):
        command = "docker run --rm --network none --gpus all --entrypoint nvidia-smi"
        first = next(iter(options.base.values()))
        code, out, words = run(*command.split(), first, "-L", timeout=180)
        found, good = f"nvidia-smi in {first}: {words}", code == 0 and out.startswith("GPU ")
        checks.append(judge(good, found, "a GPU in the container", f"To repair that, {CONFIGURE}"))
    return checks


def examine(options: Any, images: dict[str, Any]) -> list[Check]:
    """All checks in order; `images` gets what is found of each base image."""
    gpu, info = options.gpu == "yes", None
    if options.mode == "docker":
        where = os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT")
        done = run("docker", "version", "--format", "{{.Server.Version}}")
        told = run("docker", "info", "--format", "{{json .}}") if done[0] == 0 else done
        checks = [daemon_check(told[0], done[1], told[2], where)]
        info = None if failed(checks) else json.loads(told[1])
    else:
        missing = [name for name in ("venv", "ensurepip") if not importlib.util.find_spec(name)]
        checks = [python_check(sys.version_info[:3], missing)]
    checks += gpu_checks(gpu, options.release, *ask_gpus())
    if info:
        options.pull = options.pull and not failed(checks)
        checks += container_checks(options, gpu, info, images)
    elif options.mode == "docker":
        checks.append(Check(NOTE, "Disk, images and containers are not checked without Docker"))
    return checks + [port_check(port, PORTS[i]) for i, port in enumerate(options.ports)]


def main() -> None:
    """Print the checks; with --pull, pull and write FILE."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it pulls: no traceback
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["docker", "local"], required=True)
    parser.add_argument("--gpu", choices=["yes", "no"], required=True)
    parser.add_argument("--release", required=True)
    parser.add_argument("--base", action="append", default=[], metavar="NAME=REFERENCE")
    parser.add_argument("--ports", nargs=3, type=int, default=[])
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    options.base = dict(one.partition("=")[::2] for one in options.base)
    if set(options.base) - set(GIGABYTES):
        parser.error(f"--base is NAME=REFERENCE, with a NAME out of {', '.join(GIGABYTES)}")
    if options.pull != bool(options.out) or options.pull > bool(options.base):
        parser.error("--pull and --out belong together, and need a --base")
    images: dict[str, Any] = {}
    checks = examine(options, images)
    if not options.out:
        print(*checks, sep="\n")
    elif failed(checks):
        print(*failed(checks), sep="\n", file=sys.stderr)
    else:
        temporary = f"{options.out}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps({"release": options.release, "bases": images}, indent=1) + "\n")
        os.replace(temporary, options.out)
        print(f"{options.out}: ready for release {options.release} with {', '.join(images)}")
    sys.exit(1 if failed(checks) else 0)


if __name__ == "__main__":
    main()
