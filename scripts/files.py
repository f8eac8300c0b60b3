"""The contract for files between steps: whole or absent, hashed, and JSON with finite numbers only.

`results/<case>/<variant>.<step>.json` holds: variant, step, mode, device, `inputs` (path -> sha256
of what the result was computed from), versions, and what the step found.
"""

import errno
import hashlib
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well.

    After an error, a full disk or Ctrl-C the temporary file is removed and `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # NumPy reports a short write without a number: "5000 requested and 109 written".
        if error.errno not in FULL and "requested and" not in str(error):
            raise
        raise click.ClickException(
            f"{path} was not written, the disk is full ({error}). Make room and run it again."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def relative(path: Path) -> str:
    """The path as results record it: relative to the project folder where it lies inside."""
    path = Path(os.path.abspath(path))
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.as_posix()


def hashes(paths: list[Path]) -> dict[str, str]:
    """path -> sha256, in the order given: the `inputs` of a result."""
    return {relative(path): sha256(path) for path in paths}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of `packages`, Python's, and the container image that ran the step.

    The image is "<name> <release> <id>", as the container line of the Makefile says it, or "none".
    """
    python = ".".join(str(part) for part in sys.version_info[:3])
    image = os.environ.get("VERDICT_IMAGE", "none")
    return {"image": image, "python": python} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    """As installed; a module may come from a package of another name, like onnxruntime-gpu."""
    try:
        return version(package)
    except PackageNotFoundError:
        return str(importlib.import_module(package).__version__)


def gpu_name(device: str) -> str | None:
    """Name, driver and memory of the first GPU, as nvidia-smi says it; None on the CPU."""
    if device == "cpu":
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise click.ClickException(
            f"nvidia-smi does not say which GPU this is ({error}), and no figure is kept without "
            "that. Check the driver, or run with GPU=no."
        ) from None
    name, driver, memory = found.stdout.splitlines()[0].split(", ")
    return f"{name}, {memory}, driver {driver}"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result. Raises ValueError on NaN or infinity, which JSON cannot hold."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    with writing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def finite(value: float) -> float | None:
    """The number as JSON can hold it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _no_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")


def read_json(path: Path) -> dict[str, Any]:
    """Read a result of an earlier step."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise click.ClickException(f"{path} is missing; run `make all` to build it.") from None
    except ValueError as error:
        raise click.ClickException(
            f"{path} is not readable JSON ({error}). Remove it and run `make all`."
        ) from None
    if not isinstance(content, dict):
        raise click.ClickException(f"{path} holds no JSON object. Remove it and run `make all`.")
    return content
