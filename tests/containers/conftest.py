"""One daemon, one set of base images and one built copy for all tests with containers."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import standins
from tests.containers.copies import CALLER, TRT, Contained, derive
from tests.containers.engine import Engine, start_engine


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All run in one worker, so that each of these is made once."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("containers"))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A daemon that accepts `--gpus all`."""
    with start_engine(gpu=True) as started:
        yield started


@pytest.fixture(scope="session")
def engine_without_gpu() -> Iterator[Engine]:
    """A daemon on a machine without NVIDIA's container toolkit."""
    with start_engine(gpu=False) as started:
        yield started


@pytest.fixture(scope="session")
def bases(engine: Engine) -> Iterator[None]:
    """standin/pytorch, and standin-gpu/* with trtexec and every package in place."""
    os.chown(engine.host.removeprefix("unix://"), 0, CALLER)
    os.chmod(engine.folder, 0o755)
    folder = engine.folder / "debian"
    standins.debian(folder)
    standins.furnish(folder, standins.brought)
    pytorch, server = (f"standin/{name}:26.07-py3" for name in ("pytorch", "tritonserver"))
    standins.import_image(engine.host, folder, pytorch, TRT)
    shutil.rmtree(folder)
    # Python-based backends run the models in the server's image, so it holds ONNX Runtime and PyTorch.
    standins.furnish(folder, standins.added)
    standins.triton(folder)
    standins.extend_image(engine.host, pytorch, folder, server)
    shutil.rmtree(folder)
    engine.docker("tag", server, f"{server}-sdk")
    fakes = engine.folder / "fakes"
    fakes.mkdir()
    (fakes / "nvidia-smi").write_text(standins.NVIDIA_SMI)
    (fakes / "nvidia-smi").chmod(0o755)
    yield


@pytest.fixture
def folder(engine: Engine, request: pytest.FixtureRequest) -> Path:
    """For a copy of the project: other users cannot enter pytest's own folders."""
    return engine.folder / request.node.name[:30]


@pytest.fixture(scope="session")
def built(engine: Engine, bases: None) -> Contained:
    """A copy in which `make all` has run in containers, with two forms less. Tests leave it built."""
    project = Contained(engine.folder / "built", engine)
    project.leave_out("onnx_bf16", "onnx_int8")
    done = project.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


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
