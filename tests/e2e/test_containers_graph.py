"""The graph of MODE=docker GPU=yes, as `make -n` shows it: nothing here runs a container."""

import os
import re
import time

import pytest

from tests.project import Project

VARIANTS = ("torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_fp16", "onnx_int8", "trt_fp32",
            "trt_fp16", "trt_int8")  # fmt: skip
DOCKER = ("all", "MODE=docker", "GPU=yes", "V=1")
RUN = re.compile(r'docker run .*IMAGE="(\w+) .* python3 -m scripts\.([\w.]+)')


ALWAYS = {"verdicts.state_claims", "release.conclude", "report.write_report", "report.write_html",
          "release.publish_model", "release.check_production"}  # fmt: skip


@pytest.fixture
def as_if_built(project: Project) -> Project:
    """Every file is there, as if made; steps that make two files look for them beforehand."""
    folder = project.folder
    for variant in VARIANTS[1:]:
        (folder / f"model_repository/digits_{variant}/1").mkdir(parents=True)
    for name in ("digits/1/model.plan", "digits_decision/1/model.py", "digits_verdict/1/.keep"):
        (folder / "model_repository" / name).parent.mkdir(parents=True)
        (folder / "model_repository" / name).touch()
    (folder / "results/digits").mkdir(parents=True)
    pairs = [f"{variant}.{end}" for variant in VARIANTS for end in ("logits.npy", "score.json")]
    for name in ("fp16", "int8"):
        pairs += [
            f"onnx_{name}_mixed.repair.json",
            f"onnx_{name}.culprits.json",
            f"onnx_{name}.culprits.png",
            f"onnx_{name}.culprits.svg",
        ]
    for end in ("deviation", "layers"):
        pairs += [f"{variant}.{end}.{kind}" for variant in VARIANTS for kind in ("png", "svg")]
    for name in ("samples.json", "labels.npy", "threshold.png", "threshold.svg", *pairs):
        (folder / "results/digits" / name).touch()
    done = project.make("-t", *DOCKER)
    assert done.returncode == 0, done.stderr
    (folder / "results/report.md").write_text("# Verdict report: digits\n")
    return project


def runs(project: Project, *more: str) -> set[tuple[str, str]]:
    """(image, step) of each container that make would start."""
    return set(RUN.findall(project.make("-n", *DOCKER, *more).stdout.replace("\\\n", " ")))


def test_the_image_of_each_step(project: Project) -> None:
    found = runs(project)
    assert {step for image, step in found if image == "tensorrt"} == {
        "backends.tensorrt.build_engine", "backends.tensorrt.prove", "score.score_variant",
        "score.repeat_scoring", "score.compare_layers", "score.measure_latency",
    }  # fmt: skip
    assert {
        "data.read_samples", "backends.onnxruntime.convert_fp32", "score.score_variant",
        "score.measure_latency", "release.publish_model",
    } <= {step for image, step in found if image == "pytorch"}  # fmt: skip


def test_touching_a_dockerfile_runs_its_steps_and_what_follows(as_if_built: Project) -> None:
    assert {step for _, step in runs(as_if_built)} <= ALWAYS
    later = time.time_ns() + 10**10
    os.utime(as_if_built.folder / "docker/tensorrt.Dockerfile", ns=(later, later))
    found = runs(as_if_built)
    assert {step for image, step in found if image == "tensorrt"} == {
        "backends.tensorrt.build_engine", "backends.tensorrt.prove", "score.score_variant",
        "score.repeat_scoring", "score.compare_layers", "score.measure_latency",
    }  # fmt: skip
    pytorch = {step for image, step in found if image == "pytorch"}
    assert not pytorch & {
        "data.read_samples", "families.torch.check_model", "backends.onnxruntime.convert_fp32",
        "backends.onnxruntime.convert_fp16", "verdicts.choose_threshold", "score.score_variant",
        "backends.onnxruntime.prove",
    }  # fmt: skip
    # A dry run does not follow the second file of a step that makes two, so not all that comes after
    # the scores is shown.
    assert {"report.draw_pictures", "release.conclude", "report.write_report"} <= pytorch


def test_the_container_line(project: Project) -> None:
    lines = project.make("-n", *DOCKER).stdout.replace("\\\n", " ").splitlines()
    found = [line for line in lines if line.startswith("docker run")]
    assert len(found) > 30
    for line in found:
        for part in (
            '--rm --init --user "`id -u`:`id -g`" --network none',
            "--security-opt no-new-privileges --shm-size 1g",
            "--tmpfs /caches:rw,exec,mode=1777",
            "--env HOME=/caches --env USER=verdict",
            f'--volume "{project.folder}:{project.folder}" --workdir "{project.folder}"',
            "--gpus all --ulimit memlock=-1 --ulimit stack=67108864",
        ):
            assert part in line, part
    without = project.make("-n", "all", "MODE=docker", "GPU=no", "V=1").stdout
    assert "docker run" in without
    assert "--gpus" not in without
    assert "memlock" not in without


ASKED = re.compile(r"measure_perf_analyzer data/digits/case.toml --variant (\w+) ")
WAITS = re.compile(r"^results/digits/([\w.]+)\.json:.*\| (.*)$", re.MULTILINE)


def test_perf_analyzer_asks_one_server_after_the_other(project: Project) -> None:
    """Also under -j: each waits for the one before, and all for the other timings."""
    waits = dict(WAITS.findall(project.make("-n", "-p", *DOCKER).stdout))
    timed = ["latency", "latency_tensorrt", "served_latency"]
    timed += [f"{one}.perf" for one in VARIANTS[1:]]
    assert "results/digits/trt_fp16.served.json" in waits["latency"].split()
    for one, earlier in zip(timed[1:], timed[:-1], strict=True):
        assert waits[one] == f"results/digits/{earlier}.json"
    shown = project.make("-n", *DOCKER).stdout.replace("\\\n", " ")
    recipes = [line for line in shown.splitlines() if "measure_perf_analyzer" in line]
    assert [ASKED.findall(line) for line in recipes] == [[one] for one in VARIANTS[1:]]
    assert shown.index("scripts.triton.measure_served") < shown.index(recipes[0])
    assert shown.index(recipes[-1]) < shown.index("scripts.release.conclude")
    for variant, line in zip(VARIANTS[1:], recipes, strict=True):
        assert line.index("trap") < line.index("docker run"), "whatever happens, it is removed"
        server, client = (part.split("python3 -m ")[0] for part in line.split("docker run ")[1:])
        assert server.startswith('--detach --name "$server" --init') and "--network none" in server
        assert 'IMAGE="tritonserver 26.07' in server and 'IMAGE="client 26.07' in client
        assert '--network "container:$server"' in client and client.startswith("--rm ")
        assert "--gpus all" in server and "--gpus all" in client
        assert f"results/digits/{variant}.perf.json" in line
        asked = "--http 127.0.0.1:8000 --grpc 127.0.0.1:8001 --mode docker --device cuda"
        assert asked in " ".join(line.split())


@pytest.mark.parametrize("settings", [("MODE=docker", "SERVED=no"), ("MODE=local", "SERVED=yes")])
def test_where_no_client_measures(project: Project, settings: tuple[str, ...]) -> None:
    shown = project.make("-n", "all", "GPU=no", "V=1", *settings).stdout
    assert "scripts.release.conclude" in shown
    assert "perf_analyzer" not in shown and "perf.json" not in shown
    if settings[0] == "MODE=docker":
        assert "--base client=" not in shown


def test_touching_its_dockerfile_asks_perf_analyzer_again(as_if_built: Project) -> None:
    later = time.time_ns() + 10**10
    os.utime(as_if_built.folder / "docker/client.Dockerfile", ns=(later, later))
    steps = {step for _, step in runs(as_if_built)}
    assert steps == {"triton.measure_perf_analyzer"} | ALWAYS


def test_release_and_registry_name_the_bases(project: Project) -> None:
    shown = project.make("-n", *DOCKER, "RELEASE=26.08", "REGISTRY=mirror.example/nv").stdout
    assert "--base client=mirror.example/nv/tritonserver:26.08-py3-sdk" in shown
    for name in ("pytorch", "tensorrt", "tritonserver"):
        assert f"--base {name}=mirror.example/nv/{name}:26.08-py3" in shown
    assert "--build-arg BASE=mirror.example/nv/tensorrt:26.08-py3" in shown
    assert "docker/.pytorch-26.08-cuda.iid" in shown
    images = project.make("-n", "images", *DOCKER[1:]).stdout
    assert "BASE=nvcr.io/nvidia/tritonserver:26.07-py3-sdk" in images


def test_an_index_or_a_proxy_of_the_environment_reaches_the_build(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.delenv("PIP_CERT", raising=False)
    shown = project.make("-n", *DOCKER).stdout
    assert "--build-arg PIP_INDEX_URL" in shown
    assert "--build-arg HTTPS_PROXY" in shown
    assert "PIP_CERT" not in shown


def test_the_dockerfiles_start_from_nvidia_unless_told_otherwise(project: Project) -> None:
    for image, base in (("pytorch", "pytorch:${RELEASE}-py3"), ("tensorrt", "tensorrt:${RELEASE}-py3"),
                        ("tritonserver", "tritonserver:${RELEASE}-py3"),
                        ("client", "tritonserver:${RELEASE}-py3-sdk")):  # fmt: skip
        text = (project.folder / f"docker/{image}.Dockerfile").read_text()
        assert f"ARG BASE=nvcr.io/nvidia/{base}\nFROM ${{BASE}}\n" in text
        assert text.splitlines()[-1].startswith("RUN ")
