"""Measure on a GPU what no test can: run every GPU part that the packages on this machine allow.

Each part runs in a process of its own, in a copy of the project that is removed afterwards: one that
fails, crashes or hangs is a row of the table, and the others go on. Nothing is installed.

Reads   data/digits, scripts/, the Makefile
Writes  JSON with machine, versions and all figures
Runs    on any machine with an NVIDIA GPU, with whatever packages its Python has; with --rehearse the
        same code at small sizes on the CPU, whose figures say nothing of a GPU
Usage   python3 tests/hardware/measure.py --out results/hardware.json
Prints  a table, and in its last line whether every part that could run passed; exits with 0 if so,
        with 1 if not, and with 2 where there is no GPU
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.hardware.machine import Machine, gpus, look  # noqa: E402
from tests.hardware.table import get_table  # noqa: E402
from tests.project import Project  # noqa: E402

CHILD = HERE / "parts.py"
BASE = ("Python 3.10 or newer", "tomli", "numpy", "click", "tqdm", "torch")
EXPORT = (*BASE, "onnx", "onnxscript", "onnxruntime")
ENGINE = (*EXPORT, "tensorrt", "polygraphy")
MAKE = ("GNU Make 4.3 or newer", *EXPORT, "onnxconverter-common", "polygraphy", "matplotlib",
        "torch with CUDA", "onnxruntime-gpu")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One process: a part of the check on one model."""

    part: str
    model: str
    needs: tuple[str, ...]
    seconds: int = 900  # after which it is ended


TASKS = (
    Task("torch", "digits", (*BASE, "torch with CUDA")),
    Task("torch", "resnet50", (*BASE, "torch with CUDA")),
    Task("torch-refusal", "digits", (*BASE, "torch with CUDA")),
    Task("onnxruntime", "digits", (*EXPORT, "onnxruntime-gpu")),
    Task("onnxruntime", "resnet50", (*EXPORT, "onnxruntime-gpu")),
    Task("onnxruntime-refusal", "digits", (*EXPORT, "onnxruntime-gpu")),
    Task("tensorrt", "digits", ENGINE),
    Task("tensorrt", "resnet50", ENGINE),
    Task("layers", "digits", ENGINE),
    Task("make", "digits", MAKE),
)
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/hardware.json"))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at small sizes")
    parts = list(dict.fromkeys(task.part for task in TASKS))
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART",
                        help=f"run these parts alone; there are {', '.join(parts)}")  # fmt: skip
    options = parser.parse_args(arguments)
    listed, words = gpus()
    if not listed and not options.rehearse:
        print(
            f"There is no NVIDIA GPU to measure: {words}. Run this where there is one, or with "
            "--rehearse, which tries the check itself on the CPU.",
            file=sys.stderr,
        )
        return 2
    found = look(options.rehearse)
    tasks = [task for task in TASKS if task.part in options.only]
    rows = measure(tasks, found, options.rehearse)
    content = report(rows, found, options.rehearse)
    write(options.out, content)
    print(get_table(content))
    print(f"\n{verdict(rows)} The figures stand in {options.out}.")
    return 0 if content["passed"] else 1


def measure(tasks: list[Task], found: Machine, rehearse: bool) -> list[Row]:
    """The rows of all tasks, in a copy of the project that is gone afterwards."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="verdict-hardware-") as folder:
        project = Project(Path(folder) / "project")
        for task in tasks:
            start = time.monotonic()
            rows += run_task(task, found, project.folder, rehearse)
            taken = time.monotonic() - start
            print(f"{task.part} {task.model}: {taken:.0f} s", file=sys.stderr, flush=True)
    return rows


def run_task(task: Task, found: Machine, folder: Path, rehearse: bool) -> list[Row]:
    """The rows that the task's process gave, and one more where it did not end well."""
    lacks = found.lacks(task.needs)
    if lacks:
        return [empty(task, "not run", f"needs {lacks}")]
    given, log = folder / "rows", folder / "log"
    given.write_text("")
    command = [sys.executable, str(CHILD), task.part, task.model, "--rows", str(given)]
    code = run_child(command + ["--rehearse"] * rehearse, folder, log, task.seconds)
    rows = [json.loads(line) for line in given.read_text(encoding="utf-8").splitlines()]
    if code is None:
        rows.append(empty(task, "failed", f"did not end within {task.seconds} s"))
    elif code:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        rows.append(empty(task, "failed", f"{how}; last words: {last_words(log)}"))
    elif not rows:
        rows.append(empty(task, "failed", "ended without a row"))
    return rows


def run_child(command: list[str], folder: Path, log: Path, seconds: int) -> int | None:
    """Exit code, or None where it had to be stopped. What it has started ends with it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder)}
    with open(log, "wb") as file:
        child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "none")


def empty(task: Task, state: str, words: str) -> Row:
    """A row without figures."""
    row = {"part": task.part, "model": task.model, "what": "", "state": state, "words": words}
    return row | {"figures": {}}


def report(rows: list[Row], found: Machine, rehearse: bool) -> dict[str, Any]:
    """What the JSON holds. It passed when something ran and nothing failed."""
    states = {row["state"] for row in rows}
    return {
        "step": "hardware",
        "rehearsal": rehearse,
        "device": "cpu" if rehearse else "cuda",
        "passed": "ok" in states and "failed" not in states,
        "machine": found.facts,
        "versions": found.versions,
        "rows": rows,
    }


def verdict(rows: list[Row]) -> str:
    """One sentence on the whole."""
    count = {
        state: sum(row["state"] == state for row in rows) for state in ("ok", "failed", "not run")
    }
    if not count["ok"] and not count["failed"]:
        return "Nothing could run, so nothing is shown."
    return f"{count['ok']} rows passed, {count['failed']} failed, {count['not run']} were not run."


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all; a number that is not finite is an error."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended, too
    sys.exit(main())
