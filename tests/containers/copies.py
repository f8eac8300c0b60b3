"""Copies of the project in which make runs in containers, as a user whom no image knows."""

import os
import socket
import subprocess
from pathlib import Path

from tests.containers.engine import Engine
from tests.project import Project, environment

CALLER = 4321  # a uid and gid that no image and no passwd file knows
TRT = "11.1.0.106"


class Contained(Project):
    """A copy of the project that belongs to CALLER; make runs as that user, with the engine."""

    def __init__(
        self, folder: Path, engine: Engine, registry: str = "standin", gpu: str = "no"
    ) -> None:
        super().__init__(folder)
        self.engine, self.registry, self.gpu = engine, registry, gpu
        (folder / ".venv").unlink()
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, CALLER, CALLER)

    def command(self, *arguments: str) -> list[str]:
        return ["setpriv", f"--reuid={CALLER}", f"--regid={CALLER}", "--clear-groups", "make",
                *arguments, "MODE=docker", f"GPU={self.gpu}", f"REGISTRY={self.registry}",
                "BUILD_FLAGS=--network host", "GPU_FLAGS=--gpus all"]  # fmt: skip

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, capture_output=True, text=True, env=self.env
        )

    @property
    def env(self) -> dict[str, str]:
        path = f"{self.engine.folder}/fakes:{os.environ['PATH']}"
        return environment() | {"DOCKER_HOST": self.engine.host, "HOME": "/nowhere", "PATH": path}


def containers(engine: Engine) -> list[str]:
    return engine.docker("ps", "--all", "--quiet").stdout.split()


def derive(engine: Engine, image: str, line: str) -> str:
    """The id of an image with one more line of a Dockerfile."""
    folder = engine.folder / "derived"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {image}\n{line}\n")
    return engine.docker("build", "--quiet", str(folder)).stdout.strip()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
