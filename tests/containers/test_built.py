"""What `make all MODE=docker` leaves, in real containers, on base images that stand in for NVIDIA's."""

import json
import re
from pathlib import Path

import numpy as np

from tests.containers.copies import CALLER, Contained, containers
from tests.project import Project


def test_verdicts_and_threshold_are_those_of_local_mode(built: Contained, tmp_path: Path) -> None:
    local = Project(tmp_path / "local")
    names = ("torch_fp32", "onnx_fp32", "onnx_fp16")
    wanted = [f"results/digits/{name}.verdicts.json" for name in names]
    done = local.make(*wanted, "MODE=local", "GPU=no")
    assert done.returncode == 0, done.stderr
    folder = local.folder / "results/digits"
    report = json.loads((built.folder / "results/digits/report.json").read_text())
    threshold = json.loads((folder / "torch_fp32.threshold.json").read_text())["metrics"]
    assert report["threshold"] == threshold
    t = threshold["logit"]
    for name in names:
        logits = [
            np.load(one.folder / f"results/digits/{name}.logits.npy") for one in (built, local)
        ]
        assert len(logits[0]) == 899
        assert np.array_equal(logits[0] >= t, logits[1] >= t), name
        verdicts = json.loads((folder / f"{name}.verdicts.json").read_text())
        assert report["variants"][name]["flips"] == verdicts["flips"]
    conditions = report["conditions"]
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
