"""For `make bench`: `make all` of the bundled case against its slowest steps alone; and one with nothing to do."""

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PARTS = ("Makefile", "scripts", "docker", "data/digits", "tests/rules.mk")
SLOWEST = 5
AGAIN = 5  # a second `make all`, so often: the median counts
# A shell for make that writes down how long each command took.
SHELL = """#!/usr/bin/env bash
begin=$EPOCHREALTIME
code=0
bash "$@" || code=$?
printf '%s %s %q\\n' "$begin" "$EPOCHREALTIME" "${@: -1}" >> "$VERDICT_TIMED"
exit $code
"""


def measured(folder: Path) -> dict[str, Any]:
    """Seconds of `make all`, of its slowest steps run alone, and of a second `make all`."""
    copy(folder)
    log = folder / "timed.log"
    whole = run(["make", f"SHELL={folder / 'timed.sh'}", "all"], folder, log)
    again = sorted(run(["make", "all"], folder, log) for _ in range(AGAIN))
    steps = {command: run(["bash", "-c", command], folder, log) for command in slowest(log)}
    return {
        "whole": whole,
        "steps": {name(command): seconds for command, seconds in steps.items()},
        "again": again[AGAIN // 2],
    }


def copy(folder: Path) -> None:
    """The project as `make all` needs it, with this one's .venv."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, target, ignore=ignored)
        else:
            shutil.copy2(PROJECT / part, target)
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    (folder / "timed.sh").write_text(SHELL, encoding="utf-8")
    (folder / "timed.sh").chmod(0o755)


def environment(log: Path) -> dict[str, str]:
    """This process's, without what a make above it has left there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return kept | {"VERDICT_TIMED": str(log)}


def run(command: list[str], folder: Path, log: Path) -> float:
    """Seconds; what it prints is kept back, and told where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(log), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {done.stdout}{done.stderr}")
    return time.perf_counter() - start


def slowest(log: Path) -> list[str]:
    """The commands of the steps that took longest inside `make all`."""
    took: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        begin, end, command = line.split(" ", 2)
        [text] = shlex.split(command) if "$'" not in command else [""]
        if "/python -m scripts." in text:
            took[text] = float(end) - float(begin)
    return sorted(took, key=lambda one: -took[one])[:SLOWEST]


def name(command: str) -> str:
    """The program, and the variant it works on."""
    words = command.split()
    program = words[words.index("-m") + 1].removeprefix("scripts.")
    variant = words[words.index("--variant") + 1] if "--variant" in words else ""
    return f"{program} {variant}".strip()
