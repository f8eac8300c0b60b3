"""What doctor judges: each check is a line of its answer, from what was found on the machine.

The standard library alone, as in doctor.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from typing import Any

OK, NOTE, FAIL = "ok", "note", "FAIL"
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


def tensorrt_check(builder: dict[str, Any], server: dict[str, Any]) -> Check:
    """A plan runs only in the version that built it, and tags do not tell that: the images do."""
    silent = [one["reference"] for one in (builder, server) if not one["tensorrt"]]
    found = f"TensorRT {builder['tensorrt']} in tensorrt, {server['tensorrt']} in tritonserver"
    found = f"No TRT_VERSION in the environment of {' and '.join(silent)}" if silent else found
    good = not silent and builder["tensorrt"] == server["tensorrt"]
    do = "Choose a RELEASE in which they agree; 26.07 and 26.08 do."
    return judge(good, found, "the same TensorRT in both images", do)
