"""A copy of the project in a folder of its own, in which `make` runs for real."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Project:
    """`run` runs a command in the copy; `make` runs make there and gives the whole outcome."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "docker", "data/digits"):
            ignore = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        shutil.copy2(ROOT / "Makefile", folder)
        (folder / ".venv").symlink_to(ROOT / ".venv")  # times are kept: it counts as made

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment()
        )


def environment() -> dict[str, str]:
    """This process's, without what a make above it has left there."""
    return {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
