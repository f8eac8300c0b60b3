"""`make all` in local mode, in a copy of the project, with this Python in the place of its .venv."""

import sys
import time
from pathlib import Path
from typing import Any

from scripts.files import read_json
from tests.hardware.judge import is_on
from tests.project import Project


def make_row(device: str) -> dict[str, Any]:
    """The row: make's outcome, what runs each variant, flips, and the recommendation."""
    project = Project(Path.cwd() / "fresh")
    folder = stand_in(project.folder / "venv", device)
    start = time.monotonic()
    done = project.make("all", *settings(device), f"VENV={folder}", f"PYTHON={folder}/bin/python")
    taken = time.monotonic() - start
    sys.stderr.write(done.stdout + done.stderr)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()[-6:]
        return {"state": "failed", "words": " ".join(words), "figures": {}}
    report = read_json(project.folder / "results/digits/report.json")
    figures = summary(report) | {"seconds": taken}
    wrong = judge(figures, device)
    words = f"{' '.join(settings(device))} took {taken:.0f} s and recommends "
    words += f"{figures['recommendation']}; {flips(figures)}"
    return {"state": "failed" if wrong else "ok", "words": wrong or words, "figures": figures}


def settings(device: str) -> list[str]:
    """What make is told; without a server, which would have to be installed. A rehearsal hurries."""
    chosen = ["GPU=yes"] if device == "cuda" else ["GPU=no", "-j2"]
    return ["MODE=local", *chosen, "SERVED=no"]


def stand_in(folder: Path, device: str) -> Path:
    """What make takes for a finished .venv: nothing is installed."""
    python = folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / f"installed-{device}.txt").write_text("whatever this Python has\n")
    return folder


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """What is kept of report.json."""
    rows = {name: row for name, row in report["variants"].items() if row["measured"]}
    chosen = report["recommendation"]
    return {
        "recommendation": chosen["variant"],
        "reasons": chosen["reasons"],
        "not_chosen": chosen["not_chosen"],
        "providers": report["conditions"]["providers"],
        "variants": {
            name: {
                "flips": row["flips"]["total"],
                "deviation_max_absolute": row["deviation"]["max_absolute"],
                "depends": len(row["repeats"]["samples"]),
                "latency_p50_ms": {
                    size: times["latency_p50_ms"] for size, times in row["latency"].items()
                },
            }
            for name, row in rows.items()
        },
    }


def judge(figures: dict[str, Any], device: str) -> str:
    """What is wrong with the outcome; "" where nothing is."""
    told = figures["providers"].items()
    elsewhere = [f"{name} by {provider}" for name, provider in told if not is_on(provider, device)]
    if elsewhere:
        return f"{device} was asked for, and was run: {', '.join(elsewhere)}"
    if len(figures["providers"]) < 2:
        return f"only {', '.join(figures['providers'])} ran"
    return "" if figures["recommendation"] else "no variant passes every gate"


def flips(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {one['flips']} flips" for name, one in figures["variants"].items())
