"""A real tritonserver as a process: started, waited for, killed, and its reasons told."""

import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from scripts.triton import home as triton_home
from scripts.triton import server as triton_server
from scripts.triton.server import Home, Server, find_server, running_server
from scripts.triton.words import last_words

pytestmark = pytest.mark.xdist_group("server")  # what is set up once for all is set up once

CONFIG = """\
name: "echo"
backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
MODEL = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", request.inputs()[0].as_numpy())])
            for request in requests
        ]
"""


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.json of a home, as make lays it out."""
    out = tmp_path_factory.mktemp("home") / "triton" / "server.json"
    done = CliRunner().invoke(triton_home.main, ["--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Triton 2.51.0 with Python 3.")
    return out


@pytest.fixture(scope="session")
def home(described: Path) -> Home:
    return triton_home.read_home(described)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "echo"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1" / "model.py").write_text(MODEL)
    return folder.parent


def echo(server: Server) -> list[list[float]]:
    import numpy as np
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(server.http) as client:
        given = tritonclient.http.InferInput("x", [2, 2], "FP32")
        given.set_data_from_numpy(np.array([[1, 2], [3, 4]], np.float32))
        found: list[list[float]] = client.infer("echo", [given]).as_numpy("y").tolist()
        return found


def left(server: Server) -> list[str]:
    """Command lines of the server and its stubs that still run, and its shared memory."""
    (name,) = re.findall(r"shm-region-prefix-name=(\S+?)_'", str(server.process.args))
    found = [str(path) for path in Path("/dev/shm").glob(f"{name}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode()
        except OSError:
            continue
        if name in line:
            found.append(line)
    return found


def soon(condition: Callable[[], Any], seconds: float = 15) -> bool:
    """Whether it comes true within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(click.ClickException) as caught, running_server(*arguments, **options):
        pass
    assert "\n" not in caught.value.message
    return caught.value.message


# ---- running -------------------------------------------------------------------------------------
def test_two_servers_answer_at_once_and_leave_nothing(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"home": home}
    with (
        running_server(repository, ["echo"], tmp_path / "1.log", **options) as one,
        running_server(repository, ["echo"], tmp_path / "deep" / "2.log", **options) as two,
    ):
        assert len({one.http, one.grpc, one.metrics, two.http, two.grpc, two.metrics}) == 6
        assert (one.version, one.native) == ("2.51.0", False)
        assert left(one)
        for server in (one, two):
            assert echo(server) == [[1, 2], [3, 4]]
            server.check()
            assert _listening(server.process.pid) <= {"127.0.0.1"}
    assert not left(one) + left(two)
    assert one.process.returncode == 0
    assert "failed" not in (tmp_path / "1.log").read_text()


def _listening(pid: int) -> set[str]:
    """The addresses on which a process listens, over TCP."""
    inodes = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(path)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])  # of 32 bits, little-endian
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    assert found
    return found


def test_a_restart_on_the_same_ports(repository: Path, home: Home, tmp_path: Path) -> None:
    with running_server(repository, ["echo"], tmp_path / "log", home=home) as first:
        echo(first)
        addresses = (first.http, first.grpc, first.metrics)
    http, grpc, metrics = (int(address.rpartition(":")[2]) for address in addresses)
    ports = (http, grpc, metrics)
    with running_server(repository, ["echo"], tmp_path / "log", ports, home) as second:
        assert (second.http, second.grpc, second.metrics) == addresses
        assert echo(second) == [[1, 2], [3, 4]]


def test_a_killed_server_is_told_with_its_last_words(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    with running_server(repository, ["echo"], tmp_path / "log", home=home) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        assert soon(lambda: server.process.poll() is not None)
        with pytest.raises(click.ClickException) as caught:
            server.check()
        text = caught.value.message
        assert text.startswith("tritonserver ended (killed by SIGKILL); its last words: ")
        assert "Started Metrics Service" in text
        assert str(tmp_path / "log") in text
    assert not left(server)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_error_in_the_block_leaves_no_process(
    repository: Path, home: Home, tmp_path: Path, error: type[BaseException]
) -> None:
    seen = []
    with (
        pytest.raises(error),
        running_server(repository, ["echo"], tmp_path / "log", home=home) as server,
    ):
        seen.append(server)
        raise error
    assert not left(seen[0])


def test_ctrl_c_while_it_loads_leaves_no_process(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def interrupt(process: subprocess.Popen[bytes], *_: Any) -> str:
        started.append(process)
        time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(triton_server, "_wait", interrupt)
    with (
        pytest.raises(KeyboardInterrupt),
        running_server(repository, ["echo"], tmp_path / "log", home=home),
    ):
        pass
    assert started[0].returncode is not None


def test_a_server_that_does_not_end_is_killed(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_server, "STOP_SECONDS", 0.5)
    with running_server(repository, ["echo"], tmp_path / "log", home=home) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
    assert server.process.returncode == -signal.SIGKILL
    assert not left(server)


def test_the_server_ends_with_the_process_that_started_it(
    repository: Path, described: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    program = f"""
import time
from pathlib import Path
from scripts.triton.home import read_home
from scripts.triton.server import running_server
home = read_home(Path({str(described)!r}))
with running_server(Path({str(repository)!r}), ["echo"], Path("log"), home=home) as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}/exe").exists()
        parent.kill()
    assert soon(lambda: not _runs(pid)), "the server outlives its parent"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_texts_are_refused_and_not_garbled(repository: Path, home: Home, tmp_path: Path) -> None:
    """The stub, compiled for NumPy 1, cannot read them under NumPy 2 and ends; no wrong answer comes."""
    import numpy as np
    import tritonclient.http
    from tritonclient.utils import InferenceServerException

    path = repository / "echo" / "config.pbtxt"
    path.write_text(CONFIG.replace("TYPE_FP32", "TYPE_STRING"))
    with running_server(repository, ["echo"], tmp_path / "log", home=home) as server:
        given = tritonclient.http.InferInput("x", [1, 2], "BYTES")
        given.set_data_from_numpy(np.array([[b"a", b"bc"]], object))
        with (
            tritonclient.http.InferenceServerClient(server.http) as client,
            pytest.raises(InferenceServerException, match=r"\[500\]"),
        ):
            client.infer("echo", [given])


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_port_that_somebody_else_has(
    repository: Path, home: Home, tmp_path: Path, at: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = (taken if at == 0 else 0, taken if at == 1 else 0, taken if at == 2 else 0)
        text = refusal(repository, ["echo"], tmp_path / "log", ports, home)
    setting = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")[at]
    assert text.startswith(f"The port {taken} on 127.0.0.1 cannot be had (Address already in use)")
    assert f"make serve {setting}=" in text


def test_ports_that_are_none(repository: Path, home: Home, tmp_path: Path) -> None:
    text = refusal(repository, ["echo"], tmp_path / "log", (9000, 9000, 0), home)
    assert text == "The port 9000 is asked for twice; give GRPC_PORT another."
    text = refusal(repository, ["echo"], tmp_path / "log", (0, 70000, 0), home)
    assert text == "GRPC_PORT is 70000; a port is a number up to 65535."


def test_a_port_lost_before_the_server_has_it(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free port that is taken meanwhile: by anybody, and by a tritonserver with the same models."""
    choose = triton_server._choose
    tries: list[list[int]] = []

    def unlucky(ports: Any) -> list[int]:
        tries.append(choose(ports))
        if len(tries) < len(lost) + 1:
            tries[-1][lost[len(tries) - 1][0]] = lost[len(tries) - 1][1]
        return tries[-1]

    with (
        running_server(repository, ["echo"], tmp_path / "1.log", home=home) as other,
        socket.create_server(("127.0.0.1", 0)) as somebody,
    ):
        lost = [
            (0, int(other.http.rpartition(":")[2])),
            (2, int(other.metrics.rpartition(":")[2])),
            (1, somebody.getsockname()[1]),
        ]
        monkeypatch.setattr(triton_server, "_choose", unlucky)
        with running_server(repository, ["echo"], tmp_path / "2.log", home=home) as server:
            assert server.http != other.http
            assert echo(server) == [[1, 2], [3, 4]]
        assert len(tries) == 4
        tries.clear()
        lost *= 2
        text = refusal(repository, ["echo"], tmp_path / "2.log", home=home)
        assert len(tries) == triton_server.ATTEMPTS
        assert "did not start in 5 tries: a port that was free has been taken" in text
        assert "already in use" in text


def test_a_known_crash_of_triton_is_told_and_tried_again(
    repository: Path, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crashing = tmp_path / "tritonserver"
    crashing.write_text(
        "#!/bin/sh\n"
        f'if [ -e {tmp_path}/crashed ]; then exec {home.executable} "$@"; fi\n'
        f"touch {tmp_path}/crashed\n"
        "echo \"terminate called after throwing an instance of 'boost::interprocess::lock_exception'\"\n"
        "kill -ABRT $$\n"
    )
    crashing.chmod(0o755)
    other = Home(crashing, False, home.environment, home.arguments)
    with running_server(repository, ["echo"], tmp_path / "log", home=other) as server:
        assert echo(server) == [[1, 2], [3, 4]]
    said = capsys.readouterr().err
    assert "tritonserver did not start: a known crash of its Python backend" in said
    assert said.count("\n") == 1


def test_a_repository_without_the_model(repository: Path, home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    empty = tmp_path / "empty"
    assert "holds no model" in refusal(empty, ["echo"], log, home=home)
    empty.mkdir()
    assert "Run `make all` to build one." in refusal(empty, ["echo"], log, home=home)
    assert "it holds echo. Run `make all`" in refusal(repository, ["other"], log, home=home)
    assert "was named to be served; it holds echo." in refusal(repository, [], log, home=home)
    assert not log.exists()


def test_a_model_without_a_version(repository: Path, home: Home, tmp_path: Path) -> None:
    (repository / "echo" / "1" / "model.py").unlink()
    (repository / "echo" / "1").rmdir()
    text = refusal(repository, ["echo"], tmp_path / "log", home=home)
    assert "tritonserver ended (code 1) while it loaded echo; its last words: " in text
    assert "echo" in text.partition("its last words: ")[2]


def test_a_python_model_that_raises(repository: Path, home: Home, tmp_path: Path) -> None:
    (repository / "echo" / "1" / "model.py").write_text("raise ValueError('no such thing')\n")
    text = refusal(repository, ["echo"], tmp_path / "log", home=home)
    assert "failed to load 'echo' version 1: Internal: ValueError: no such thing. " in text


def test_a_server_that_cannot_start(repository: Path, home: Home, tmp_path: Path) -> None:
    bare = Home(home.executable, False, {"LD_LIBRARY_PATH": str(tmp_path)}, home.arguments)
    text = refusal(repository, ["echo"], tmp_path / "log", home=bare, extra=["--no-such-option"])
    assert "tritonserver ended (code 1)" in text
    assert "no-such-option" in text


# ---- words ---------------------------------------------------------------------------------------
def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    assert last_words(log) == "its last words: none."
    log.write_text(
        'E1124 06:53:02.463009 24928 server.cc:241] "CudaDriverHelper has not been initialized."\n'
        'I1124 06:53:02.463010 24928 server.cc:250] "Waiting   for requests."\n+---+\n| a |\n\n'
    )
    assert last_words(log) == "its last words: Waiting for requests."
    log.write_text(
        "".join(f'E1124 06:53:02.4 24928 a.cc:2] "number {n}"\n' for n in range(9))
        + 'E1124 06:53:02.4 24928 a.cc:2] "number 8"\n'
        + "error: creating server: Internal - failed to load all models\n"
    )
    assert (
        last_words(log) == "its last words: " + "; ".join(f"number {n}" for n in range(4, 9)) + "."
    )
    log.write_bytes(b"terminate called\n  what():  \xff bad\n")
    assert last_words(log) == "its last words: \ufffd bad."


# ---- the home ------------------------------------------------------------------------------------
def test_a_home_is_laid_out_anew_in_place(described: Path) -> None:
    before = described.read_bytes()
    stale = described.parent / "backends" / "onnxruntime" / "model.py"
    stale.write_text("stale")
    done = CliRunner().invoke(triton_home.main, ["--out", str(described)])
    assert done.exit_code == 0, done.output
    assert described.read_bytes() == before
    source = triton_home.BACKENDS / "onnxruntime" / "stand_in.py"
    assert stale.read_bytes() == source.read_bytes()
    assert [path.name for path in described.parent.parent.iterdir()] == ["triton"]


def test_a_home_takes_no_folder_of_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = CliRunner().invoke(triton_home.main, ["--out", str(tmp_path / "server.json")])
    assert done.exit_code == 1
    assert "holds other files, and would be replaced" in done.output
    assert str(tmp_path / "triton" / "server.json") in done.output
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (("darwin", "arm64", ("", "")), "is for Linux on x86-64, and this is darwin on arm64"),
        (("linux", "aarch64", ("glibc", "2.36")), "this is linux on aarch64"),
        (("linux", "x86_64", ("glibc", "2.31")), "needs glibc 2.35 or newer"),
        (("linux", "x86_64", ("", "")), "this system has none"),
    ],
)
def test_a_machine_that_cannot(machine: tuple[str, str, tuple[str, str]], words: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        triton_home.check_machine(*machine)
    assert words in caught.value.message
    assert "MODE=docker" in caught.value.message
    triton_home.check_machine("linux", "x86_64", ("glibc", "2.35"))


def test_a_python_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_home.sysconfig, "get_config_vars", lambda: {"LIBDIR": "/nowhere"})
    monkeypatch.setattr(triton_home.sys, "base_prefix", str(tmp_path))
    with pytest.raises(click.ClickException) as caught:
        triton_home.python_library()
    version = triton_home.python_version()
    assert f"needs libpython{version}.so.1.0, and {sys.executable} was built without" in str(
        caught.value
    )
    assert f"apt-get install libpython{version}" in str(caught.value)
    library = tmp_path / "lib" / "x86_64-linux-gnu" / f"libpython{version}.so.1.0"
    library.parent.mkdir(parents=True)
    library.touch()
    assert triton_home.python_library() == library.parent


def test_a_python_without_a_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, _, _ = triton_home.find_wheel()
    monkeypatch.setattr(triton_home, "python_version", lambda: "3.14")
    with pytest.raises(click.ClickException) as caught:
        triton_home.find_stub(wheel)
    assert "with Python 3.8, 3.9, 3.10, 3.11, 3.12, 3.13, and this is 3.14" in caught.value.message


def test_without_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(triton_home.metadata, "distribution", missing)
    done = CliRunner().invoke(triton_home.main, ["--out", str(tmp_path / "t" / "server.json")])
    assert done.exit_code == 1
    assert "nvidia-pytriton, which holds tritonserver, is not installed whole" in done.output
    assert "install --no-deps --requirement docker/requirements-triton.txt" in done.output
    assert not list(tmp_path.iterdir())


def test_the_server_that_is_found(
    tmp_path: Path, described: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_home, "NATIVE", tmp_path / "tritonserver")
    monkeypatch.setattr(triton_home.sys, "prefix", str(tmp_path))
    with pytest.raises(click.ClickException, match="There is no tritonserver here"):
        find_server()
    monkeypatch.setattr(triton_home.sys, "prefix", str(described.parent.parent))
    assert find_server() == home
    assert not home.native
    (tmp_path / "tritonserver").touch()
    assert find_server() == Home(tmp_path / "tritonserver", True, {}, ())


def test_a_home_whose_wheel_is_gone(tmp_path: Path, described: Path) -> None:
    moved = tmp_path / "server.json"
    text = described.read_text().replace("/bin/tritonserver", "/bin/gone")
    moved.write_text(text)
    with pytest.raises(click.ClickException, match="bin/gone, which is gone"):
        triton_home.read_home(moved)
