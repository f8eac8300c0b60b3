"""`make all MODE=docker` in real containers, on base images that stand in for NVIDIA's."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.containers import standins
from tests.project import ROOT, Project, environment

CALLER = 4321  # a uid and gid that no image and no passwd file knows
TRT = "11.1.0.106"
STEP = re.compile(r"python3 -m scripts\.([\w.]+)")


class Contained(Project):
    """A copy of the project that belongs to CALLER; make runs as that user, with the engine."""

    def __init__(self, folder: Path, engine, registry: str = "standin", gpu: str = "no") -> None:  # type: ignore[no-untyped-def]
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


@pytest.fixture(scope="session")
def bases(engine) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """standin/pytorch, and standin-gpu/* with trtexec and every package in place."""
    os.chown(engine.host.removeprefix("unix://"), 0, CALLER)
    os.chmod(engine.folder, 0o755)
    folder = engine.folder / "debian"
    standins.debian(folder)
    standins.furnish(folder, standins.BROUGHT)
    standins.import_image(engine.host, folder, "standin/pytorch:26.07-py3", TRT)
    # Python-based backends run the models in the server's image, so it holds ONNX Runtime and PyTorch.
    standins.furnish(folder, None)
    standins.triton(folder)
    standins.import_image(engine.host, folder, "standin/tritonserver:26.07-py3", TRT)
    shutil.rmtree(folder)
    engine.docker("tag", "standin/tritonserver:26.07-py3", "standin/tritonserver:26.07-py3-sdk")
    fakes = engine.folder / "fakes"
    fakes.mkdir()
    (fakes / "nvidia-smi").write_text(standins.NVIDIA_SMI)
    (fakes / "nvidia-smi").chmod(0o755)
    yield


@pytest.fixture
def folder(engine, request: pytest.FixtureRequest) -> Path:  # type: ignore[no-untyped-def]
    """For a copy of the project: other users cannot enter pytest's own folders."""
    return engine.folder / request.node.name[:30]


@pytest.fixture(scope="session")
def built(engine, bases) -> Contained:  # type: ignore[no-untyped-def]
    """A copy in which `make all` has run in containers. Tests leave it built."""
    project = Contained(engine.folder / "built", engine)
    done = project.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def containers(engine) -> list[str]:  # type: ignore[no-untyped-def]
    return engine.docker("ps", "--all", "--quiet").stdout.split()


def test_verdicts_and_threshold_are_those_of_local_mode(built: Contained, tmp_path: Path) -> None:
    local = Project(tmp_path / "local")
    done = local.make("all", "MODE=local", "GPU=no", "SERVED=no")
    assert done.returncode == 0, done.stderr
    reports = [
        json.loads((one.folder / "results/digits/report.json").read_text())
        for one in (built, local)
    ]
    assert reports[0]["threshold"] == reports[1]["threshold"]
    t = reports[0]["threshold"]["logit"]
    for name in ("torch_fp32", "onnx_fp32", "onnx_fp16"):
        logits = [
            np.load(one.folder / f"results/digits/{name}.logits.npy") for one in (built, local)
        ]
        assert len(logits[0]) == 899
        assert np.array_equal(logits[0] >= t, logits[1] >= t), name
        rows = [report["variants"][name] for report in reports]
        assert rows[0]["flips"] == rows[1]["flips"]
    conditions = reports[0]["conditions"]
    assert (conditions["mode"], conditions["release"]) == ("docker", "26.07")
    assert re.fullmatch(
        r"pytorch 26\.07 sha256:[0-9a-f]{64}", conditions["versions"]["pytorch"]["image"]
    )
    text = (built.folder / "results/report.md").read_text()
    assert "make all CASE=digits MODE=docker GPU=no RELEASE=26.07" in text


def test_a_second_make_all_does_nothing(built: Contained) -> None:
    assert built.make("all").stdout == "make: Nothing to be done for 'all'.\n"


def test_every_file_belongs_to_the_caller_and_no_container_is_left(built: Contained) -> None:
    files = list(built.folder.rglob("*"))
    assert len(files) > 80
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in files} == {(CALLER, CALLER)}
    assert containers(built.engine) == []


def test_nothing_but_steps_is_printed(built: Contained) -> None:
    (built.folder / "results/digits/threshold.png").unlink()
    done = built.make("all")
    assert done.returncode == 0, done.stderr
    assert "banner" not in done.stdout + done.stderr


PROBE = """
import getpass, os, pathlib, socket, json
home = pathlib.Path.home()
(home / "probe").write_text("x")
try:
    socket.create_connection(("192.0.2.1", 80), 1)
    network = True
except OSError:
    network = False
shm = os.statvfs("/dev/shm")
print(json.dumps({"uid": os.getuid(), "gid": os.getgid(), "user": getpass.getuser(),
    "home": str(home), "network": network, "shm": shm.f_blocks * shm.f_frsize,
    "here": os.getcwd(), "tf32": os.environ["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"],
    "bash": os.environ.get("READ_BY_BASH"), "image": os.environ["VERDICT_IMAGE"]}))
"""


def test_what_a_step_finds_in_its_container(built: Contained) -> None:
    program = built.folder / "probe.py"
    program.write_text(PROBE)
    rule = "probe: ; @$(call container,pytorch,step) python3 probe.py"
    done = built.make(f"--eval={rule}", "probe")
    program.unlink()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["uid"], found["gid"], found["user"]) == (CALLER, CALLER, "verdict")
    assert found["home"] == "/caches"
    assert found["network"] is False
    assert found["shm"] == 1 << 30
    assert found["here"] == str(built.folder), "the same path inside and outside"
    assert found["tf32"] == "0"
    assert found["bash"] == "yes", "what NVIDIA sets up for older drivers is read"
    assert found["image"].startswith("pytorch 26.07 sha256:")


def test_each_variant_was_served_in_its_container(built: Contained) -> None:
    report = json.loads((built.folder / "results/digits/report.json").read_text())
    for name in ("torchscript_fp32", "onnx_fp32", "onnx_fp16"):
        served = report["variants"][name]["served"]
        assert served["samples"] == []
        assert len(served["conditions"]) == 9
        assert served["load"]["samples_checked"] > 600
    images = report["conditions"]["versions"]
    assert images["tritonserver"]["image"].startswith("tritonserver 26.07 sha256:")


def test_perf_analyzer_asked_a_server_of_each_variant(built: Contained) -> None:
    report = json.loads((built.folder / "results/digits/report.json").read_text())
    for name in ("torchscript_fp32", "onnx_fp32", "onnx_fp16"):
        found = json.loads((built.folder / f"results/digits/{name}.perf.json").read_text())
        levels = found["levels"]
        assert [one["concurrency"] for one in levels] == [2**i for i in range(len(levels))]
        assert [one["concurrency"] for one in levels if not one["stable"]] == [2]
        assert all(one["statistics"]["average_batch"] >= 1 for one in levels)
        assert found["samples"] == 64
        assert "perf_analyzer stands in" in found["versions"]["perf_analyzer"]
        assert report["variants"][name]["served"]["perf"]["levels"] == levels
    images = report["conditions"]["versions"]
    assert images["client"]["image"].startswith("client 26.07 sha256:")
    text = (built.folder / "results/report.md").read_text()
    assert "measured by NVIDIA's perf_analyzer" in text and "| 2 (unstable) |" in text


def test_a_server_that_cannot_load_says_why_and_is_removed(built: Contained) -> None:
    path = built.folder / "model_repository/digits_onnx_fp16/config.pbtxt"
    good, was = path.read_bytes(), path.stat()
    before = (built.folder / "results/digits/onnx_fp16.perf.json").read_bytes()
    path.write_bytes(good.replace(b'backend: "onnxruntime"', b'backend: "nonesuch"'))
    os.utime(path)
    done = built.make("results/digits/onnx_fp16.perf.json", "--assume-old=results/digits/samples.json",
                      "--assume-old=results/digits/served_latency.json")  # fmt: skip
    path.write_bytes(good)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert done.returncode == 2
    assert "tritonserver ended" in done.stderr and "nonesuch" in done.stderr
    assert (built.folder / "results/digits/onnx_fp16.perf.json").read_bytes() == before
    assert containers(built.engine) == []
    assert built.make("-q", "all").returncode == 0


@pytest.fixture
def without_result(built: Contained) -> Iterator[Path]:
    """A result that is missing during a test, and is there again after it."""
    result = built.folder / "results/digits/onnx_fp32.perf.json"
    content, was = result.read_bytes(), result.stat()
    result.unlink()
    yield result
    result.write_bytes(content)
    os.chown(result, CALLER, CALLER)
    os.utime(result, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert built.make("-q", "all").returncode == 0


def test_a_server_that_dies_while_it_is_asked_has_the_last_word(
    built: Contained, without_result: Path
) -> None:
    make = subprocess.Popen(
        built.command("results/digits/onnx_fp32.perf.json"), cwd=built.folder, env=built.env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for _ in range(600):
        running = built.engine.docker("ps", "--format", "{{.Names}}").stdout.split()
        if any(name.endswith("-client") for name in running):
            break
        time.sleep(0.1)
    [server] = [name for name in running if not name.endswith("-client")]
    built.engine.docker("exec", server, "python3", "-c", KILL)
    said, _ = make.communicate(timeout=60)
    assert make.returncode == 2, said
    assert "tritonserver ended (killed by SIGKILL)" in said, said
    assert containers(built.engine) == []
    assert not without_result.exists()


KILL = """
import os, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*/exe"):
    try:
        if os.readlink(path).endswith("/tritonserver"):
            os.kill(int(path.parent.name), 9)
    except OSError:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_container_outlives_perf_analyzer_s_step(
    built: Contained, without_result: Path, number: int
) -> None:
    """With SIGTERM make alone is asked, and tells its children."""
    for wanted in (1, 2):  # while the server loads; while the client asks
        make = subprocess.Popen(
            built.command("results/digits/onnx_fp32.perf.json"), cwd=built.folder, env=built.env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # As in a terminal, also where the tests themselves run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        for _ in range(600):
            if len(containers(built.engine)) >= wanted:
                break
            time.sleep(0.1)
        else:
            pytest.fail("the containers were not started")
        time.sleep(0.5)
        if number == signal.SIGINT:
            os.killpg(make.pid, number)
        else:
            make.send_signal(number)
        make.communicate(timeout=60)
        assert make.returncode != 0
        assert containers(built.engine) == []
        assert not without_result.exists()
        assert not list(built.folder.rglob("*.tmp"))


def test_make_serve_in_its_container(built: Contained) -> None:
    ports = [f"{name}_PORT={free_port()}" for name in ("HTTP", "GRPC", "METRICS")]
    make = subprocess.Popen(
        built.command("serve", *ports), cwd=built.folder, env=built.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert make.stdout is not None
    said = ""
    for line in make.stdout:
        said += line
        if line.startswith("Ctrl-C ends"):
            break
    assert "native backends" in said, said
    [request] = [line for line in said.splitlines() if line.startswith("curl ")]
    answer = json.loads(subprocess.check_output(request.split(), cwd=built.folder))
    values = {one["name"]: one["data"][0] for one in answer["outputs"]}
    logits = np.load(built.folder / "results/digits/torch_fp32.logits.npy")
    assert values["verdict"] == bool(logits[0] >= values["threshold"])
    assert values["logit"] == pytest.approx(float(logits[0]), abs=0.1)
    os.killpg(make.pid, signal.SIGINT)
    rest, _ = make.communicate(timeout=60)
    assert "Stopped." in rest
    assert containers(built.engine) == []
    assert {path.lstat().st_uid for path in built.folder.rglob("*")} == {CALLER}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_touching_the_dockerfile_runs_every_step_again(built: Contained) -> None:
    path = built.folder / "docker/pytorch.Dockerfile"
    was = path.stat()
    path.touch()
    again = set(STEP.findall(built.make("-n", "all", "V=1").stdout))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert {"data.read_samples", "backends.onnxruntime.convert_fp32", "score.score_variant",
            "report.write_report"} <= again  # fmt: skip
    assert built.make("-q", "all").returncode == 0


def test_a_failing_step_keeps_its_message_and_what_was_there(built: Contained) -> None:
    labels = built.folder / "data/digits/labels.npy"
    good, was = labels.read_bytes(), labels.stat()
    before = (built.folder / "results/digits/report.json").read_bytes()
    np.save(labels, np.zeros(899, np.uint8))
    done = built.make("all")
    assert done.returncode == 2
    assert "the positive label is 1, and the labels are 0" in done.stderr
    assert re.search(r"samples\.json\] Error 1$", done.stderr, re.MULTILINE)
    assert (built.folder / "results/digits/report.json").read_bytes() == before
    assert containers(built.engine) == []
    labels.write_bytes(good)
    os.utime(labels, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert built.make("-q", "all").returncode == 0


def test_ctrl_c_leaves_no_container_and_nothing_half(built: Contained) -> None:
    later = time.time_ns()
    os.utime(built.folder / "scripts/score/measure_latency.py", ns=(later, later))
    make = subprocess.Popen(
        built.command("all"), cwd=built.folder, env=built.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(300):
        if containers(built.engine):
            break
        time.sleep(0.1)
    else:
        pytest.fail("no container was started")
    time.sleep(3)  # into the timing
    os.killpg(make.pid, signal.SIGINT)
    make.communicate(timeout=60)
    assert make.returncode != 0
    assert containers(built.engine) == []
    assert not list(built.folder.rglob("*.tmp"))
    done = built.make("all")
    assert done.returncode == 0, done.stderr
    assert "samples scored" not in done.stdout, "what was there is used"


def test_links_that_lead_out_of_the_project_work(built: Contained, folder: Path) -> None:
    elsewhere = folder
    elsewhere.mkdir()
    inputs = built.folder / "data/digits/inputs.npy"
    was = inputs.stat()
    shutil.move(inputs, elsewhere / "inputs.npy")
    inputs.symlink_to(elsewhere / "inputs.npy")
    (built.folder / "results/digits/request.json").unlink()
    done = built.make("results/digits/request.json")
    inputs.unlink()
    shutil.move(elsewhere / "inputs.npy", inputs)
    os.utime(inputs, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert done.returncode == 0, done.stdout + done.stderr
    assert built.make("-q", "all").returncode == 0


def test_a_report_of_containers_is_not_taken_for_one_of_local_mode(built: Contained) -> None:
    (built.folder / ".venv").symlink_to(ROOT / ".venv")
    done = built.run("make", "results/digits/report.json", "MODE=local", "GPU=no")
    (built.folder / ".venv").unlink()
    assert done.returncode == 2
    assert "now asked for: local, cpu" in done.stderr
    assert "make clean CASE=digits && make all CASE=digits MODE=local GPU=no" in done.stderr
    assert built.make("-q", "all").returncode == 0


def test_adding_packages_moves_nothing_of_the_base(built: Contained) -> None:
    """PIP_CONSTRAINT of the base would refuse two of them; torch and what it needs stay."""
    list_all = (
        "import importlib.metadata as m;"
        "print('\\n'.join(sorted(d.metadata['Name'] + '=' + d.version for d in m.distributions())))"
    )
    image = next(built.folder.glob("docker/.pytorch-*.iid")).read_text()
    found = [
        set(
            built.engine.docker(
                "run", "--rm", "--entrypoint", "python3", one, "-c", list_all
            ).stdout.split()
        )
        for one in ("standin/pytorch:26.07-py3", image)
    ]
    assert any(line.startswith("torch=") for line in found[0])
    assert found[0] < found[1]
    assert {"onnxscript=0.7.2", "onnx-ir=1.1.0", "onnxruntime=1.27.0"} <= found[1] - found[0]


def test_a_base_without_torch_is_refused(engine, bases) -> None:  # type: ignore[no-untyped-def]
    bare = derive(engine, "standin/pytorch:26.07-py3", f"RUN rm -r /{standins.SITE}/torch*")
    done = engine.docker(
        "build", "--file", str(ROOT / "docker/pytorch.Dockerfile"), "--build-arg", f"BASE={bare}",
        str(ROOT / "docker"), check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "The base image brings no torch" in done.stdout + done.stderr


# ---- with a GPU as far as it goes without one -------------------------------------------------------


@pytest.fixture(scope="session")
def gpu_bases(built: Contained) -> None:
    """standin-gpu/*: every package in place already, trtexec and a package named tensorrt."""
    site = f"/{standins.SITE}/tensorrt"
    line = f"RUN mkdir {site} && touch {site}/__init__.py"
    whole = derive(built.engine, "standin/tritonserver:26.07-py3", line)
    other = derive(built.engine, whole, "ENV TRT_VERSION=10.14.1.48")
    for registry, server in (("standin-gpu", whole), ("standin-bad", other)):
        for name, image in (("pytorch", whole), ("tensorrt", whole), ("tritonserver", server)):
            built.engine.docker("tag", image, f"{registry}/{name}:26.07-py3")
        built.engine.docker("tag", server, f"{registry}/tritonserver:26.07-py3-sdk")


def derive(engine, image: str, line: str) -> str:  # type: ignore[no-untyped-def]
    """The id of an image with one more line of a Dockerfile."""
    folder = engine.folder / "derived"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {image}\n{line}\n")
    return engine.docker("build", "--quiet", str(folder)).stdout.strip()


def test_two_versions_of_tensorrt_stop_before_anything_is_built(
    engine,
    gpu_bases,
    folder: Path,  # type: ignore[no-untyped-def]
) -> None:
    project = Contained(folder, engine, "standin-bad", "yes")
    images = sorted(engine.docker("images", "--all", "--quiet").stdout.split())
    done = project.make("all")
    assert done.returncode == 2
    assert TRT in done.stderr and "10.14.1.48" in done.stderr
    assert "Building" not in done.stdout
    assert sorted(engine.docker("images", "--all", "--quiet").stdout.split()) == images
    assert not list(project.folder.glob("docker/.*"))
    assert not (project.folder / "results").exists()


def test_an_engine_is_built_by_trtexec_in_its_container(
    engine,
    gpu_bases,
    folder: Path,  # type: ignore[no-untyped-def]
) -> None:
    project = Contained(folder, engine, "standin-gpu", "yes")
    plan = project.folder / "model_repository/digits_trt_fp16/1/model.plan"
    done = project.make(str(plan.relative_to(project.folder)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert plan.read_text() == "engine\n"
    assert plan.stat().st_uid == CALLER
    log = (project.folder / "results/digits/trt_fp16.build.log").read_text()
    assert "--onnx=model_repository/digits_onnx_fp16/1/model.onnx" in log
    assert "--maxShapes=image:32x1x8x8" in log
    preflight = json.loads((project.folder / "docker/.preflight-26.07-cuda.json").read_text())
    assert preflight["bases"]["tensorrt"]["tensorrt"] == TRT
    # The engine is none, and no step takes it for one.
    scored = project.make("results/digits/trt_fp16.score.json")
    assert scored.returncode == 2
    assert not (project.folder / "results/digits/trt_fp16.logits.npy").exists()
    (project.folder / "trtexec_fails").touch()
    (project.folder / "docker/tensorrt.Dockerfile").touch()
    again = project.make(str(plan.relative_to(project.folder)))
    assert again.returncode == 2
    assert "trtexec failed with exit code 1: [E] Error[4]: a layer cannot be built" in again.stderr
    assert plan.read_text() == "engine\n", "the earlier engine stays"
