"""The images that are built, and a GPU as far as it goes without one."""

import json
from pathlib import Path

from tests.containers import standins
from tests.containers.copies import CALLER, TRT, Contained, derive
from tests.containers.engine import Engine
from tests.project import ROOT


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


def test_a_base_without_torch_is_refused(engine: Engine, bases: None) -> None:
    bare = derive(engine, "standin/pytorch:26.07-py3", f"RUN rm -r /{standins.SITE}/torch*")
    done = engine.docker(
        "build", "--force-rm", "--file", str(ROOT / "docker/pytorch.Dockerfile"), "--build-arg", f"BASE={bare}",
        str(ROOT / "docker"), check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "The base image brings no torch" in done.stdout + done.stderr


def test_two_versions_of_tensorrt_stop_before_anything_is_built(
    engine: Engine, gpu_bases: None, folder: Path
) -> None:
    project = Contained(folder, engine, "standin-bad", "yes")
    images = sorted(engine.docker("images", "--all", "--quiet").stdout.split())
    done = project.make("all")
    assert done.returncode == 2
    assert TRT in done.stderr and "10.14.1.48" in done.stderr
    assert "Building" not in done.stdout
    assert sorted(engine.docker("images", "--all", "--quiet").stdout.split()) == images
    assert not list(project.folder.glob("docker/.*"))
    [only] = [path for path in (project.folder / "results").rglob("*") if path.is_file()]
    assert only.name == "decided.mk" and not only.read_text(), "which make reads before all else"


def test_an_engine_is_built_by_trtexec_in_its_container(
    engine: Engine, gpu_bases: None, folder: Path
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
