"""A real tritonserver as a process of this one: started, waited for, ended, its own words kept.

In NVIDIA's container it is the server there, with its native backends. Elsewhere it is what
scripts/triton/home.py laid out in the environment. Everything listens on 127.0.0.1 only.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from json import loads
from pathlib import Path

import click

from scripts.files import relative
from scripts.triton.home import Home as Home
from scripts.triton.home import find_server as find_server
from scripts.triton.words import last_words

HOST = "127.0.0.1"
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")  # what make calls them
LOAD_SECONDS, STOP_SECONDS, POLL_SECONDS = 1800, 30, 0.05
ATTEMPTS = 5
# What may end a server while it starts, and is no fault of a model. The second was seen once in some
# 300 starts, with 14 models on a machine under load.
AGAIN = {
    "already in use": "a port that was free has been taken",
    "boost::interprocess::lock_exception": "a known crash of its Python backend "
    "(github.com/triton-inference-server/server/issues/8882)",
}
SHARED_MEMORY = Path("/dev/shm")
# Becomes the server, after asking for SIGTERM (15) when the thread that started it ends (prctl's
# PR_SET_PDEATHSIG is 1). A process of its own: forking one that has threads, of gRPC say, is not safe.
LAUNCH = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)
LISTEN = "0A"  # in /proc/net/tcp


@dataclass(frozen=True)
class Server:
    """A tritonserver that is ready. Addresses are "127.0.0.1:8000"."""

    http: str
    grpc: str
    metrics: str
    native: bool
    version: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Stay until the server has ended; then as `check`."""
        while True:
            time.sleep(0.5)
            self.check()

    def check(self) -> None:
        """Raises click.ClickException with Triton's last words unless the server still runs."""
        if self.process.poll() is not None:
            raise click.ClickException(
                f"tritonserver ended {_how(self.process)}; {last_words(self.log)} The whole log: "
                f"{relative(self.log)}."
            )


class _Again(Exception):
    """The server is to be started again: what ended it comes neither from a model nor from a setting."""


@contextmanager
def running_server(
    repository: Path,
    models: Sequence[str],
    log: Path,
    ports: tuple[int, int, int] = (0, 0, 0),
    home: Home | None = None,
    extra: Sequence[str] = (),
    at_once: bool = False,
) -> Iterator[Server]:
    """Start tritonserver with `models` of `repository`, wait until all are ready, end it afterwards.

    `ports` are those of HTTP, gRPC and metrics; 0 is a free one. What the server prints goes to `log`.
    `extra` are more arguments of tritonserver. `at_once`: it is killed afterwards, when it has nothing
    left to answer; to end well takes it a second. Raises click.ClickException with Triton's own words
    when it does not start or a model does not load.
    """
    home = home or find_server()
    _check_models(repository, models)
    log.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        _check_ports(ports)
        numbers = _choose(ports)
        name = f"verdict-{uuid.uuid4().hex[:12]}"
        arguments = [*_arguments(repository, models, numbers, name), *home.arguments, *extra]
        command = [str(home.executable), *arguments]
        with _process(command, home, log, name, at_once) as process:
            try:
                version = _wait(process, numbers, models, log)
            except _Again as reason:
                if attempt == ATTEMPTS:
                    raise click.ClickException(
                        f"tritonserver did not start in {ATTEMPTS} tries: {reason}; "
                        f"{last_words(log)} The whole log: {relative(log)}."
                    ) from None
                click.echo(f"tritonserver did not start: {reason}. It is tried again.", err=True)
                continue
            http, grpc, metrics = (f"{HOST}:{number}" for number in numbers)
            yield Server(http, grpc, metrics, home.native, version, log, process)
        return


def _check_models(repository: Path, models: Sequence[str]) -> None:
    known = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    if not known:
        raise click.ClickException(
            f"The model repository {repository} holds no model: no folder with a config.pbtxt. Run "
            "`make all` to build one."
        )
    if not models:
        raise click.ClickException(
            f"No model of {repository} was named to be served; it holds {', '.join(known)}."
        )
    for model in models:
        if model not in known:
            raise click.ClickException(
                f"There is no model {model!r} in {repository}; it holds {', '.join(known)}. Run "
                "`make all` with its CASE to build it."
            )


def _check_ports(ports: Sequence[int]) -> None:
    """Each port that was asked for is free, and none is asked for twice."""
    for at, (setting, port) in enumerate(zip(PORTS, ports, strict=True)):
        if not 0 <= port < 65536:
            raise click.ClickException(f"{setting} is {port}; a port is a number up to 65535.")
        if port and port in ports[:at]:
            raise click.ClickException(
                f"The port {port} is asked for twice; give {setting} another."
            )
        try:
            _bind(port).close()
        except OSError as error:
            raise click.ClickException(
                f"The port {port} on {HOST} cannot be had ({error.strerror}), perhaps by another "
                f"server. End that one, or choose another port: make serve {setting}={port + 10}"
            ) from None


def _bind(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Triton does
    try:
        found.bind((HOST, port))
    except OSError:
        found.close()
        raise
    return found


def _choose(ports: Sequence[int]) -> list[int]:
    """The ports with a free one for each 0; held all at once, so that no two are the same."""
    sockets = [None if port else _bind(0) for port in ports]
    numbers = []
    for port, found in zip(ports, sockets, strict=True):
        numbers.append(found.getsockname()[1] if found else port)
    for found in sockets:
        if found:
            found.close()
    return numbers


def _arguments(
    repository: Path, models: Sequence[str], ports: Sequence[int], name: str
) -> list[str]:
    pairs = zip(("http", "grpc", "metrics"), ports, strict=True)
    return [
        f"--model-repository={repository.resolve()}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        "--exit-timeout-secs=10",
        *(part for kind, port in pairs
          for part in (f"--{kind}-address={HOST}", f"--{kind}-port={port}")),
        # Of every Python-based backend: time to import PyTorch from a cold disk, and a name by which
        # shared memory is found again when a server was killed.
        "--backend-config=python,stub-timeout-seconds=600",
        f"--backend-config=python,shm-region-prefix-name={name}_",
    ]  # fmt: skip


@contextmanager
def _process(
    command: list[str], home: Home, log: Path, name: str, at_once: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a process group of its own; neither it nor a stub outlives the block."""
    environment = dict(os.environ)
    for key, value in home.environment.items():
        before = environment.get(key)
        environment[key] = f"{value}{os.pathsep}{before}" if before else value
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process, at_once)
        for left in SHARED_MEMORY.glob(f"{name}_*"):
            left.unlink(missing_ok=True)


def _stop(process: subprocess.Popen[bytes], at_once: bool) -> None:
    try:
        if not at_once:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):  # then it is killed below
                process.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):  # what is left of the group: stubs, or all of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(
    process: subprocess.Popen[bytes], ports: Sequence[int], models: Sequence[str], log: Path
) -> str:
    """Wait until the server and each model are ready. Gives Triton's version."""
    deadline = time.monotonic() + LOAD_SECONDS
    paths = ["/v2/health/ready", *(f"/v2/models/{model}/ready" for model in models), "/v2"]
    while time.monotonic() < deadline:
        ready = set(ports) <= _listens(process.pid)  # or another server would answer for this one
        answers = [_get(ports[0], path) for path in paths] if ready else []
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace")
            for words, reason in AGAIN.items():
                if words in said:
                    raise _Again(reason)
            raise click.ClickException(
                f"tritonserver ended {_how(process)} while it loaded {', '.join(models)}; "
                f"{last_words(log)} The whole log: {relative(log)}. Mend the model's config.pbtxt, or "
                "remove its folder and run `make all` to build it again."
            )
        if ready and None not in answers:
            return str(loads(answers[-1] or "")["version"])
        time.sleep(POLL_SECONDS)
    raise click.ClickException(
        f"tritonserver has not loaded {', '.join(models)} within {LOAD_SECONDS} seconds; "
        f"{last_words(log)} The whole log: {relative(log)}."
    )


def _listens(pid: int) -> set[int]:
    """The ports on which the process listens itself."""
    sockets, found = set(), set()
    with suppress(OSError):  # it ends meanwhile
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(path))
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == LISTEN and f"socket:[{inode}]" in sockets:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


def _get(port: int, path: str) -> bytes | None:
    """The body of an answer with status 200. http.client knows no proxies, which is right here."""
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"(killed by {signal.Signals(-code).name})" if code < 0 else f"(code {code})"
