"""Check what a run needs of this machine: Docker or Python, GPU, driver, disk, base images, ports.

Runs    on the host, with the standard library alone: Make calls it before anything is installed
Usage   python3 -m scripts.doctor --mode docker --gpu yes --release 26.07
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
from dataclasses import dataclass
from typing import Any

OK, NOTE, FAIL = "ok", "note", "FAIL"
SECONDS = 20.0  # `docker info` can hang
# From this release on the CUDA inside needs this driver. Below: a release that an older one can run.
DRIVERS = (("25.08", 580), ("25.05", 575), ("25.01", 570), ("24.08", 560))
FALLBACKS = ((575, "25.06"), (570, "25.04"), (560, "24.12"))
# Branches on which the libraries in the image stand in for a newer driver: data-centre GPUs only.
COMPATIBLE = (470, 525, 535, 545, 550, 560, 565, 570, 575)
NOT_DATA_CENTRE = re.compile("GeForce|RTX|TITAN|Quadro", re.IGNORECASE)
# Estimates of what an image takes on the disk, unpacked, in GB.
GIGABYTES = {"pytorch": 25, "tensorrt": 12, "tritonserver": 20, "client": 15}
PORTS = ("HTTP", "gRPC", "metrics")
CONFIGURE = "run `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker."


@dataclass(frozen=True)
class Check:
    """One line of the answer: phrases, and in `do` whole sentences, printed unless all is well."""

    mark: str
    found: str
    needed: str = ""
    do: str = ""

    def __str__(self) -> str:
        texts = (self.found, self.needed and f"Needed: {self.needed}", self.mark != OK and self.do)
        ended = [text if text[-1] in ".?!" else f"{text}." for text in texts if text]
        return f"{self.mark:<5} {' '.join(ended)}"


def judge(good: bool, found: str, needed: str, do: str) -> Check:
    return Check(OK if good else FAIL, found, needed, do)


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if check.mark == FAIL]


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


def python_check(version: tuple[int, ...], missing: list[str]) -> Check:
    found = f"Python {'.'.join(map(str, version))}" + "".join(f", no {name}" for name in missing)
    new = version >= (3, 10)
    do = f"Install python{version[0]}.{version[1]}-venv (Debian, Ubuntu)" if new else "Get one"
    do += ", or name another Python: make PYTHON=python3.12 ..."
    return judge(new and not missing, found, "Python 3.10 or newer with venv and ensurepip", do)


def daemon_check(code: int, version: str, words: str, where: str | None) -> Check:
    """From `docker version`; `where` is what DOCKER_HOST or DOCKER_CONTEXT says, if anything."""
    if code == 127:
        do = "Install it (https://docs.docker.com/engine/install), or go without: MODE=local."
        return Check(FAIL, "There is no docker command", "Docker Engine", do)
    if code != 0 and "permission denied" in words.lower() and "unix" in words:
        do = "Run `sudo usermod -aG docker $USER` and log in again, or set up rootless Docker."
        return Check(FAIL, f"This user may not use Docker: {words}", "access to its socket", do)
    do = "Start it: sudo systemctl start docker."
    do = f"Start it, or correct DOCKER_HOST or DOCKER_CONTEXT: {where}" if where else do
    good = code == 0 and version[:1].isdigit()
    found = f"Docker {version.strip()}" if good else f"The Docker daemon does not answer: {words}"
    return judge(good, found, "a running Docker daemon", do)


def ask_gpus() -> tuple[list[tuple[str, str, str]], str]:
    """Name, driver and compute capability (or "": old drivers cannot tell) of each; last words."""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        code, out, words = run("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
        gpus = re.findall(r"^(.+?), (\d[\d.]*)(?:, (\S+))?$", out, re.MULTILINE)
        if code == 0 and gpus:
            return gpus, ""
    return [], words


def driver_check(release: str, names: str, driver: str) -> Check:
    if not re.fullmatch(r"\d\d\.(0[1-9]|1[0-2])", release) or release < DRIVERS[-1][0]:
        needed = "YY.MM, 24.08 or newer: TensorRT before 10.3 is not supported"
        return Check(FAIL, f'RELEASE is "{release}"', needed, "Try RELEASE=26.07.")
    least = next(number for first, number in DRIVERS if release >= first)
    branch = int(driver.split(".")[0])
    found, needed = f"{names}, driver {driver}", f"driver {least} or newer for release {release}"
    if branch < least and branch in COMPATIBLE and not NOT_DATA_CENTRE.search(names):
        return Check(NOTE, found, needed, "It relies on forward compatibility of the image.")
    older = [f", or choose RELEASE={one} (CUDA 12)" for n, one in FALLBACKS if branch >= n]
    do = f"Install driver {least} or newer{older[0] if older else ''}."
    return judge(branch >= least, found, needed, do)


def capability_check(gpus: list[tuple[str, str, str]]) -> Check:
    needed, do = "7.5 or newer for every GPU", "Use a newer GPU, or go without: GPU=no."
    told = {text: name for name, _, text in gpus if re.fullmatch(r"\d+\.\d+", text)}
    low = [text for text in told if tuple(map(int, text.split("."))) < (7, 5)]
    if not low and not all(text in told for _, _, text in gpus):
        return Check(NOTE, "Compute capability: nvidia-smi does not tell it", needed)
    found = f"{low[0]} of {told[low[0]]}" if low else ", ".join(sorted(told))
    return judge(not low, f"Compute capability {found}", needed, do)


def gpu_checks(gpu: bool, release: str, gpus: list[tuple[str, str, str]], why: str) -> list[Check]:
    names = ", ".join(sorted({name for name, _, _ in gpus}))
    if not gpu:
        listed = f", though nvidia-smi lists {names}" if gpus else ""
        return [Check(NOTE, f"No GPU is used (GPU=no){listed}")]
    if not gpus:
        do = "Install or repair NVIDIA's driver, or go without: GPU=no."
        return [Check(FAIL, f"nvidia-smi lists no GPU: {why}", "a GPU (GPU=yes)", do)]
    return [driver_check(release, names, gpus[0][1]), capability_check(gpus)]


def runtime_check(runtimes: list[str], tool: str | None) -> Check:
    """`tool`: a command of NVIDIA's container toolkit that is on the PATH, or None."""
    found = f"Docker's runtimes: {', '.join(sorted(runtimes))}" + (f"; {tool}" if tool else "")
    do = f"Install nvidia-container-toolkit, {CONFIGURE}"
    return judge("nvidia" in runtimes or bool(tool), found, "NVIDIA's container toolkit", do)


def disk_check(missing: list[str], info: dict[str, Any], here: str) -> Check:
    """`missing`: base images to pull; `info`: of `docker info`; `here`: this machine's name."""
    # New installations of Docker 29 leave the images to the system's containerd.
    outside = ["driver-type", "io.containerd.snapshotter.v1"] in (info.get("DriverStatus") or [])
    folder = "/var/lib/containerd" if outside else str(info.get("DockerRootDir"))
    gigabytes = sum(GIGABYTES[name] for name in missing)
    needed = f"about {gigabytes} GB for {', '.join(missing)} (estimated)" if missing else "nothing"
    if info.get("Name") != here or not os.path.isdir(folder):
        found = f"The free space in {folder} of {info.get('Name')} cannot be seen from here"
        return Check(NOTE, found, needed)
    free = shutil.disk_usage(folder).free / 1e9
    do = "Make room (`docker system df` shows what Docker holds), or move Docker's data root."
    return judge(free >= gigabytes, f"{free:.0f} GB free in {folder}", needed, do)


def read_image(reference: str, text: str) -> dict[str, Any]:
    """What FILE says of a base image, from the JSON of `docker image inspect`."""
    facts = json.loads(text)
    variables = dict(one.partition("=")[::2] for one in facts["Config"].get("Env") or [])
    digest, version = (facts["RepoDigests"] or [None])[0], variables.get("TRT_VERSION")
    return {"reference": reference, "id": facts["Id"], "digest": digest, "tensorrt": version}


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


def tensorrt_check(builder: dict[str, Any], server: dict[str, Any]) -> Check:
    """A plan runs only in the version that built it, and tags do not tell that: the images do."""
    silent = [one["reference"] for one in (builder, server) if not one["tensorrt"]]
    found = f"TensorRT {builder['tensorrt']} in tensorrt, {server['tensorrt']} in tritonserver"
    found = f"No TRT_VERSION in the environment of {' and '.join(silent)}" if silent else found
    good = not silent and builder["tensorrt"] == server["tensorrt"]
    do = "Choose a RELEASE in which they agree; 26.07 and 26.08 do."
    return judge(good, found, "the same TensorRT in both images", do)


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
