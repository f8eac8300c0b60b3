"""A copy of the project in a folder of its own, in which `make` runs for real."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Project:
    """`run` runs a command in the copy; `make` runs make there and gives the whole outcome."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "docker", "data/digits"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        shutil.copy2(ROOT / "Makefile", folder)
        (folder / ".venv").symlink_to(ROOT / ".venv")  # times are kept: it counts as made

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env=environment
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project without results."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project in which `make all` has run. Tests leave it built."""
    project = Project(tmp_path_factory.mktemp("digits") / "project")
    done = project.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    return project
