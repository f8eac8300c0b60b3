"""Lay out a real tritonserver for the local mode, from the nvidia-pytriton wheel in this environment.

The server and its libraries are links into the wheel; the Python backend is copied, since Triton refuses a
backend that lies elsewhere. In place of the native backends stand the stand_in.py of their folders in
scripts/backends.

Reads   the installed nvidia-pytriton (docker/requirements-triton.txt), scripts/backends/
Writes  server.json, and bin/, lib/, backends/ beside it: the whole folder is this step's own
Runs    on the CPU, in the Python that is to run the models
Usage   python3 -m scripts.triton.home --out .venv/triton/server.json
Prints  Triton 2.51.0 with Python 3.12 backends for onnxruntime and pytorch in .venv/triton
"""

import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from scripts.files import read_json, write_json

NATIVE = Path("/opt/tritonserver/bin/tritonserver")  # in NVIDIA's container
WHEEL = "nvidia-pytriton"
TRITON = {"0.7.0": "2.51.0"}  # the wheel's version -> that of the server in it
GLIBC = (2, 35)
BACKENDS = Path(__file__).parents[1] / "backends"
STAND_INS = sorted(path.parent.name for path in BACKENDS.glob("*/stand_in.py"))
OWN = {"bin", "lib", "backends", "server.json"}


@dataclass(frozen=True)
class Home:
    """A tritonserver that can be started here. `native`: with NVIDIA's own backends."""

    executable: Path
    native: bool
    environment: dict[str, str]  # to be put before what the variables hold already
    arguments: tuple[str, ...]


def find_server() -> Home:
    """The tritonserver of this machine: the container's own, or the one in this environment."""
    if NATIVE.is_file():
        return Home(NATIVE, True, {}, ())
    described = Path(sys.prefix) / "triton" / "server.json"
    if not described.is_file():
        raise click.ClickException(
            f"There is no tritonserver here, neither {NATIVE} nor {described}. `make all` and "
            "`make serve` set one up."
        )
    return read_home(described)


def read_home(described: Path) -> Home:
    """What server.json describes."""
    content = read_json(described)
    executable = Path(content["executable"])
    if not executable.is_file():
        raise click.ClickException(
            f"{described} names {executable}, which is gone. Remove {described}, and `make all` or "
            "`make serve` sets it up again."
        )
    return Home(executable, False, dict(content["environment"]), tuple(content["arguments"]))


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    folder = Path(os.path.realpath(out.parent))  # server.json names what stays, not a link to it
    check_machine(sys.platform, platform.machine(), platform.libc_ver())
    library = python_library()
    wheel, libraries, version = find_wheel()
    stub = find_stub(wheel)
    if folder.exists() and {path.name for path in folder.iterdir()} - OWN:
        raise click.ClickException(
            f"{folder} holds other files, and would be replaced. Name a folder of its own: "
            f"--out {out.parent / 'triton' / out.name}"
        )
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        lay_out(temporary, wheel, libraries, stub)
        write_json(temporary / out.name, describe(folder, library, version))
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    click.echo(
        f"Triton {TRITON.get(version, version)} with Python {python_version()} backends for "
        f"{' and '.join(STAND_INS)} in {out.parent}"
    )


def python_version() -> str:
    """Of the Python that runs this, as the wheel names its stubs: 3.12."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def check_machine(system: str, machine: str, libc: tuple[str, str]) -> None:
    """Raises click.ClickException where the wheel's binaries cannot run."""
    if system != "linux" or machine not in ("x86_64", "AMD64"):
        raise click.ClickException(
            f"The local mode's tritonserver is for Linux on x86-64, and this is {system} on "
            f"{machine}. Use MODE=docker."
        )
    name, version = libc
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < GLIBC:
        raise click.ClickException(
            f"The local mode's tritonserver needs glibc {GLIBC[0]}.{GLIBC[1]} or newer (Ubuntu 22.04, "
            f"Debian 12), and this system has {f'{name} {version}'.strip() or 'none'}. Use MODE=docker."
        )


def python_library() -> Path:
    """The folder of libpython3.X.so.1.0, which the stub is linked to."""
    name = f"libpython{python_version()}.so.1.0"
    variables = sysconfig.get_config_vars()
    roots = [Path(variables.get("LIBDIR") or sys.base_prefix), Path(sys.base_prefix) / "lib"]
    multiarch = variables.get("MULTIARCH") or "x86_64-linux-gnu"
    for folder in [place for root in roots for place in (root, root / multiarch)]:
        if (folder / name).is_file():
            return folder
    raise click.ClickException(
        f"Triton's Python backend needs {name}, and {sys.executable} was built without it. Install "
        f"it (Debian, Ubuntu: apt-get install libpython{python_version()}), or remove .venv and "
        "name another Python: make PYTHON=python3.12 ..."
    )


def find_wheel() -> tuple[Path, Path, str]:
    """The wheel's server folder, the folder of its libraries, and its version."""
    try:
        found = metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError:
        found = None
    if found is not None:
        wheel = Path(str(found.locate_file("pytriton/tritonserver")))
        libraries = Path(str(found.locate_file("nvidia_pytriton.libs")))
        if (wheel / "bin" / "tritonserver").is_file() and libraries.is_dir():
            return wheel, libraries, found.version
    raise click.ClickException(
        f"The wheel {WHEEL}, which holds tritonserver, is not installed whole in {sys.prefix}. "
        f"Run {sys.prefix}/bin/pip install --no-deps --requirement docker/requirements-triton.txt"
    )


def find_stub(wheel: Path) -> Path:
    """The stub for this version of Python: the process that runs a Python model."""
    stubs = wheel / "python_backend_stubs"
    stub = stubs / python_version() / "triton_python_backend_stub"
    if not stub.is_file():
        known = sorted((path.name for path in stubs.glob("3.*")), key=lambda name: int(name[2:]))
        raise click.ClickException(
            f"The tritonserver of the local mode runs models with Python {', '.join(known)}, and "
            f"this is {python_version()}. Remove .venv and name another Python: "
            "make PYTHON=python3.12 ..."
        )
    return stub


def lay_out(folder: Path, wheel: Path, libraries: Path, stub: Path) -> None:
    """Make bin/, lib/ and backends/ in `folder`."""
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "tritonserver").symlink_to(wheel / "bin" / "tritonserver")
    (folder / "lib").symlink_to(libraries)
    shutil.copy2(wheel / "backends" / "python" / "libtriton_python.so", python)
    shutil.copy2(stub, python)
    utilities = "triton_python_backend_utils.py"
    text = (wheel / "backends" / "python" / utilities).read_text(encoding="utf-8")
    (python / utilities).write_text(f"{text}\nimport numpy_tensors  # added by Verdict\n", "utf-8")
    shutil.copy2(BACKENDS / "numpy_tensors.py", python)
    for name in STAND_INS:
        (folder / "backends" / name).mkdir()
        shutil.copy2(BACKENDS / name / "stand_in.py", folder / "backends" / name / "model.py")
        shutil.copy2(BACKENDS / "stand_in.py", folder / "backends" / name)


def describe(folder: Path, library: Path, version: str) -> dict[str, Any]:
    """server.json: what scripts/triton/server.py starts, once this lies in `folder`."""
    return {
        "executable": str(folder / "bin" / "tritonserver"),
        "arguments": [f"--backend-directory={folder / 'backends'}"],
        # The stub finds its packages by the python3 that comes first on PATH.
        "environment": {
            "LD_LIBRARY_PATH": f"{folder / 'lib'}{os.pathsep}{library}",
            "PATH": str(Path(sys.prefix) / "bin"),
        },
        "versions": {
            WHEEL: version,
            "triton": TRITON.get(version, "unknown"),
            "python": python_version(),
        },
    }


if __name__ == "__main__":
    main()
