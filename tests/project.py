"""A copy of the project in a folder of its own, in which `make` runs for real."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEP = re.compile(r"python3? -m scripts\.([\w.]+)")


class Project:
    """`run` runs a command in the copy; `make` runs make there and gives the whole outcome."""

    def __init__(self, folder: Path, own_triton: bool = False) -> None:
        """`own_triton`: the copy lays out a Triton of its own, as it has other backends."""
        self.folder = folder
        for name in ("scripts", "docker", "data/digits"):
            ignore = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        for name in ("Makefile", "tests/rules.mk"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        if not own_triton:
            (folder / ".venv").symlink_to(ROOT / ".venv")  # times are kept: it counts as made
            return
        (folder / ".venv").mkdir()
        for path in (ROOT / ".venv").iterdir():
            if path.name != "triton":
                (folder / ".venv" / path.name).symlink_to(path)

    def leave_out(self, *variants: str, case: str = "digits") -> None:
        """Have case.toml skip the variants that a test is not about, to be quick."""
        toml = self.folder / "data" / case / "case.toml"
        skip = ", ".join(f'"{name}"' for name in variants)
        toml.write_text(f"skip = [{skip}]\n{toml.read_text()}")

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", *arguments)

    def steps(self, *options: str) -> set[str]:
        """The steps that `make all` would run now."""
        return set(STEP.findall(self.make("-n", "all", "V=1", *options).stdout))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment()
        )


def environment() -> dict[str, str]:
    """This process's, without what a make above it has left there."""
    return {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
