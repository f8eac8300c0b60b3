"""What this machine has: GPU, driver, processor, and packages that really import.

The standard library alone, so that it also runs where nothing is installed. A package that may take
its process down while it is imported is tried in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 120
QUERY = "name,compute_cap,driver_version,memory.total"
PACKAGES = ("numpy", "click", "tqdm", "matplotlib", "torch", "onnx", "onnxscript",
            "onnxconverter-common", "onnxruntime", "polygraphy", "tensorrt")  # fmt: skip
# What only an import tells, as JSON on the last line.
PROBES = {
    "torch": "version=torch.__version__, cuda=torch.version.cuda, "
    "cudnn=torch.backends.cudnn.version(), gpu=torch.cuda.is_available()",
    "onnxruntime": "version=onnxruntime.__version__, "
    "providers=onnxruntime.get_available_providers()",
    "tensorrt": "version=tensorrt.__version__",
}
# These change what the libraries compute, or on which GPU.
VARIABLES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES",
             "CUDNN_CONV_WSCAP_DBG", "CUBLAS_WORKSPACE_CONFIG")  # fmt: skip


@dataclass
class Machine:
    """`has`: names of what can be used; `why`: for some that cannot, what was found instead."""

    facts: dict[str, Any]
    versions: dict[str, str]
    has: set[str] = field(default_factory=set)
    why: dict[str, str] = field(default_factory=dict)

    def lacks(self, needs: tuple[str, ...]) -> str:
        """What is missing of `needs`, as a phrase; "" where nothing is."""
        missing = [name for name in needs if name not in self.has]
        return ", ".join(f"{n} ({self.why[n]})" if n in self.why else n for n in missing)


def look(rehearse: bool) -> Machine:
    """Everything there is to know. In a rehearsal the CPU stands in for torch's and ONNX Runtime's
    GPU."""
    found = Machine({"gpus": gpus()[0]} | computer(), {})
    found.has |= {"Python 3.10 or newer"} if sys.version_info >= (3, 10) else set()
    for name in PACKAGES:
        add_package(found, name)
    if sys.version_info >= (3, 11) or importlib.util.find_spec("tomli"):
        found.has.add("tomli")  # from 3.11 on Python has it itself
    told = {name: probe(found, name) for name in PROBES if name in found.has}
    judge_cuda(found, told.get("torch", {}), told.get("onnxruntime", {}))
    if rehearse:
        found.has |= {"torch with CUDA"} if "torch" in found.has else set()
        found.has |= {"onnxruntime-gpu"} if "onnxruntime" in found.has else set()
        if "tensorrt" in found.has:
            found.has.remove("tensorrt")
            found.why["tensorrt"] = "it has no CPU to rehearse on"
    made = run(["make", "--version"])[1]
    version = re.match(r"GNU Make (\d+)\.(\d+)", made)
    if version and (int(version[1]), int(version[2])) >= (4, 3):
        found.has.add("GNU Make 4.3 or newer")
        found.versions["make"] = f"{version[1]}.{version[2]}"
    elif made:
        found.why["GNU Make 4.3 or newer"] = f"make is {made.splitlines()[0]}"
    return found


def gpus() -> tuple[list[dict[str, str]], str]:
    """Name, compute capability, driver and memory of each GPU; else what nvidia-smi said."""
    if not shutil.which("nvidia-smi"):
        return [], "there is no nvidia-smi"
    code, out, words = run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"])
    keys = ("name", "compute_capability", "driver", "memory")
    rows = [line.split(", ") for line in out.splitlines() if line.count(", ") == len(keys) - 1]
    if code != 0 or not rows:
        return [], f"nvidia-smi says: {words}"
    return [dict(zip(keys, row)) for row in rows], ""  # noqa: B905 (Python 3.9 gets here too)


def computer() -> dict[str, Any]:
    """Processor, how many of them this process may use, memory, system, settings."""
    lines = text_of("/proc/cpuinfo").splitlines()
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""
    )
    memory = re.search(r"MemTotal:\s+(\d+) kB", text_of("/proc/meminfo"))
    return {
        "cpu": model or platform.processor() or "unknown",
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def text_of(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def add_package(found: Machine, name: str) -> None:
    """Note a package that can be found, and its version where that is recorded."""
    if importlib.util.find_spec(name.replace("-", "_")) is None:
        return
    found.has.add(name)
    try:
        found.versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found.versions[name] = "unknown"


def probe(found: Machine, name: str) -> dict[str, Any]:
    """What a package says of itself; one that does not import counts as missing, with its words."""
    program = f"import json, {name}; print(); print(json.dumps(dict({PROBES[name]})))"
    code, out, words = run([sys.executable, "-c", program])
    if code != 0:
        found.has.discard(name)
        found.why[name] = f"it does not import: {words}"
        return {}
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    found.versions[name] = told["version"]
    return told


def judge_cuda(found: Machine, torch: dict[str, Any], onnxruntime: dict[str, Any]) -> None:
    """Whether torch and ONNX Runtime can use a GPU, and if not, why."""
    if torch.get("gpu"):
        found.has.add("torch with CUDA")
        found.versions |= {"cuda in torch": torch["cuda"], "cudnn in torch": str(torch["cudnn"])}
    elif torch:
        built = (
            f"is built for CUDA {torch['cuda']} and finds no GPU" if torch["cuda"] else "has none"
        )
        found.why["torch with CUDA"] = f"torch {torch['version']} {built}"
    if "CUDAExecutionProvider" in onnxruntime.get("providers", ()):
        found.has.add("onnxruntime-gpu")
    elif onnxruntime:
        has = ", ".join(onnxruntime["providers"])
        found.why["onnxruntime-gpu"] = f"onnxruntime {onnxruntime['version']} has {has}"


def run(command: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output, last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return 127, "", str(error)
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return done.returncode, done.stdout, said[-1] if said else f"exit code {done.returncode}"
