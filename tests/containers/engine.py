"""A Docker daemon of the tests' own: real containers, without touching the machine's images."""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Engine:
    """A running dockerd with its own images. `host` is its DOCKER_HOST."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        # DOCKER_CONTEXT would come before DOCKER_HOST.
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "DOCKER_CONTEXT"))}
        self.environment = mine | {"DOCKER_HOST": self.host}

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker command against this daemon. With `check`, a failure fails the test."""
        command = ["docker", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def tiny(
        self, tag: str, env: dict[str, str] | None = None, programs: dict[str, str] | None = None
    ) -> str:
        """Make an image of 2 MB with a shell, these variables and these shell scripts; its id."""
        path = self.folder / "tiny.tar"
        with tarfile.open(path, "w") as tar:
            for file in [Path("/bin/sh"), *libraries("/bin/sh")]:
                tar.add(file.resolve(), str(file))
            for name, text in (programs or {}).items():
                content = f"#!/bin/sh\n{text}\n".encode()
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.mode, entry.size = 0o755, len(content)
                tar.addfile(entry, io.BytesIO(content))
        variables = {"PATH": "/bin"} | (env or {})
        changes = (f"--change=ENV {name}={value}" for name, value in variables.items())
        return self.docker("import", *changes, str(path), tag).stdout.strip()


def libraries(program: str) -> list[Path]:
    """The shared libraries of a program, and their loader."""
    told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(one) for one in re.findall(r"(/\S+) \(0x", told)]


@contextmanager
def start_engine(gpu: bool) -> Iterator[Engine]:
    """Start dockerd as root; stop it and remove its folder at the end.

    With `gpu` the daemon lists a runtime nvidia and accepts `--gpus all`, as with NVIDIA's container
    toolkit, except that its containers get no GPU.
    """
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    for name in ("dockerd", "docker", "setpriv"):
        if not shutil.which(name):
            refuse(f"real containers need {name}, and it is not installed here")
    if os.geteuid() != 0:
        refuse("real containers need a daemon of our own, and only root can start one")
    folder = Path(tempfile.mkdtemp(prefix="verdict-", dir="/tmp"))  # short: it holds a socket
    folder.chmod(0o755)  # so that it is the socket that keeps other users out
    engine = Engine(folder)
    # The daemon goes when the tests are killed, too.
    command = ["setpriv", "--pdeathsig", "TERM", "dockerd", "--data-root", f"{folder}/data"]
    command += [
        "--exec-root",
        f"{folder}/exec",
        "--host",
        engine.host,
        "--pidfile",
        f"{folder}/pid",
    ]
    command += ["--iptables=false", "--bridge=none"]
    environment = dict(engine.environment)
    if gpu:
        command += ["--add-runtime", "nvidia=runc"]
        hook = folder / "bin/nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 0\n")
        hook.chmod(0o755)
        environment["PATH"] = f"{hook.parent}:{environment['PATH']}"
    with open(folder / "log", "w") as log:
        daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(engine, daemon)
        yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        finally:
            daemon.kill()
            daemon.wait()
            remove(folder)


def wait_for(engine: Engine, daemon: "subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Return when the daemon answers; a daemon that ends or stays silent fails the tests."""
    end = time.monotonic() + seconds
    while engine.docker("version", check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > end:
            log = (engine.folder / "log").read_text().splitlines()
            pytest.fail("dockerd does not start:\n" + "\n".join(log[-15:]))
        time.sleep(0.1)


def remove(folder: Path) -> None:
    """Unmount what was left below the folder, the inner mounts first; remove it."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)  # or nothing is removed below it
    shutil.rmtree(folder, ignore_errors=True)
