"""The graph: what `make all` leaves, what it does the second time, what depends on what."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.project import Project


def temporary_files(project: Project) -> list[Path]:
    return [path for path in project.folder.rglob("*.tmp") if ".venv" not in path.parts]


def test_all_leaves_the_report_and_the_production_model(digits: Project) -> None:
    report = json.loads((digits.folder / "results/digits/report.json").read_text())
    chosen = report["recommendation"]["variant"]
    assert chosen in ("torchscript_fp32", "onnx_fp32", "onnx_fp16")
    first_lines = (digits.folder / "results/report.md").read_text().splitlines()[:10]
    assert f"**To production: `{chosen}`**" in first_lines[2]
    [candidate] = digits.folder.glob(f"model_repository/digits_{chosen}/1/model.*")
    published = digits.folder / "model_repository/digits/1" / candidate.name
    assert published.read_bytes() == candidate.read_bytes()
    assert not temporary_files(digits)


def test_numbers_of_the_report_recomputed_from_the_stored_logits(digits: Project) -> None:
    folder = digits.folder / "results/digits"
    report = json.loads((folder / "report.json").read_text())
    labels = np.load(folder / "labels.npy")
    reference = np.load(folder / "torch_fp32.logits.npy").astype(np.float64)
    t = report["threshold"]["logit"]
    positive = reference >= t
    assert report["threshold"]["precision"] == labels[positive].mean() >= 0.9
    assert report["threshold"]["recall"] == labels[positive].sum() / labels.sum()
    for name in ("onnx_fp32", "onnx_fp16"):
        logits = np.load(folder / f"{name}.logits.npy").astype(np.float64)
        row = report["variants"][name]
        assert row["flips"]["total"] == ((logits >= t) != positive).sum()
        assert row["deviation"]["mean"] == pytest.approx((logits - reference).mean(), abs=1e-12)
        assert row["deviation"]["max"] == (logits - reference).max()
        assert row["vs_labels"]["tp"] == ((logits >= t) & (labels == 1)).sum()
    assert report["variants"]["trt_fp16"] == {
        "measured": False,
        "sentence": report["variants"]["trt_fp16"]["sentence"],
        "runtime": "tensorrt",
        "repair": None,
        "reason": "not measured here: needs a GPU",
    }


def test_a_second_make_all_does_nothing_and_says_so(digits: Project) -> None:
    done = digits.make("all")
    assert done.stdout == "make: Nothing to be done for 'all'.\n"
    assert done.stderr == ""


def test_removing_any_artefact_builds_it_again(digits: Project) -> None:
    made = [
        path
        for folder in ("results/digits", "model_repository")
        for path in (digits.folder / folder).rglob("*")
        if path.is_file() and path.suffix not in (".log", ".pyc")
    ]
    assert len(made) > 20
    for path in [*made, digits.folder / "results/report.md"]:
        aside = path.with_name("aside")
        path.rename(aside)
        assert digits.make("-q", "all").returncode == 1, path
        aside.rename(path)
    assert digits.make("-q", "all").returncode == 0


def test_the_report_follows_the_case_that_was_run(digits: Project) -> None:
    report = digits.folder / "results/report.md"
    report.write_text("# Verdict report: other\n")
    assert digits.make("all").returncode == 0
    assert report.read_text().startswith("# Verdict report: digits\n")


def test_an_unknown_case_lists_those_there_are(project: Project) -> None:
    done = project.make("all", "CASE=digit")
    assert done.returncode != 0
    assert "There is no data/digit/case.toml. The cases here: digits." in done.stderr


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("MODE=cloud", 'MODE is "cloud"'),
        ("GPU=maybe", 'GPU is "maybe"; write GPU=yes or GPU=no'),
    ],
)
def test_an_unknown_setting_is_refused(project: Project, setting: str, sentence: str) -> None:
    done = project.make("all", setting)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_help_lists_every_verb_and_the_settings(project: Project) -> None:
    shown = project.make("help").stdout
    for verb in ("all", "new", "test", "bench", "clean", "help"):
        assert re.search(rf"^  make {verb} +\S", shown, re.MULTILINE), verb
    assert re.search(r"CASE=digits .*here: digits", shown)
    assert re.search(r"GPU=(yes|no) .*nvidia-smi", shown)


def test_ctrl_c_leaves_nothing_half_and_the_next_make_goes_on(project: Project) -> None:
    project.leave_out("torchscript_fp32", "onnx_fp16", "onnx_bf16", "onnx_int8")
    make = subprocess.Popen(
        ["make", "all", "SERVED=no"], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert make.stdout is not None
    for line in make.stdout:
        if line.startswith("threshold:"):
            break
    time.sleep(1)  # into the step after it
    os.killpg(make.pid, signal.SIGINT)
    make.communicate(timeout=120)
    assert make.returncode != 0
    assert not temporary_files(project)
    kept = (project.folder / "results/digits/torch_fp32.logits.npy").stat().st_mtime_ns
    done = project.make("all", "SERVED=no")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch_fp32: 899 samples scored" not in done.stdout
    assert (project.folder / "results/digits/torch_fp32.logits.npy").stat().st_mtime_ns == kept


def test_bad_labels_stop_make_and_earlier_results_stay(digits: Project) -> None:
    labels = digits.folder / "data/digits/labels.npy"
    report = digits.folder / "results/digits/report.json"
    good, was, before = labels.read_bytes(), labels.stat(), report.read_bytes()
    np.save(labels, np.zeros(899, np.uint8))
    done = digits.make("all")
    assert done.returncode != 0
    assert "the positive label is 1, and the labels are 0" in done.stderr
    assert report.read_bytes() == before
    labels.write_bytes(good)
    os.utime(labels, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert digits.make("-q", "all").returncode == 0


def test_file_names_that_make_finds_hard(project: Project) -> None:
    folder = project.folder / "data/odd"
    names = ["a b.png", "100%.png", "a[1].png", "q?.png", "x#1.png", "$a.png", "it's (1).png",
             "a:b.png", "a;b.png", "a=b.png", "a|b.png", "~x.png", "\u00fc.png", "back\\slash.png"]  # fmt: skip
    (folder / "images/yes").mkdir(parents=True)
    shutil.copy(project.folder / "data/digits/case.toml", folder)
    for name in names:
        (folder / "images/yes" / name).write_bytes(b"")
    target = "results/odd/samples.json"
    (project.folder / "results/odd").mkdir(parents=True)
    for made in (target, "results/odd/labels.npy"):
        (project.folder / made).touch()
    assert project.make("-q", target, "CASE=odd").returncode == 0
    for name in names:
        path = folder / "images/yes" / name
        later = time.time_ns() + 10**10
        os.utime(path, ns=(later, later))
        assert project.make("-q", target, "CASE=odd").returncode == 1, name
        os.utime(path, ns=(0, 0))


def test_one_file_of_a_pair_missing_is_mended_in_one_run(digits: Project) -> None:
    (digits.folder / "results/digits/onnx_fp16.culprits.json").unlink()
    done = digits.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digits.make("all").stdout == "make: Nothing to be done for 'all'.\n"
    for name, step in (
        ("labels.npy", "data.read_samples"),
        ("onnx_fp16.score.json", "score.score_variant"),
    ):
        path = digits.folder / "results/digits" / name
        path.rename(path.with_name("aside"))
        assert step in digits.steps()
        path.with_name("aside").rename(path)


@pytest.mark.parametrize("name", ["a b", "../x", "8"])
def test_a_case_is_named_plainly(project: Project, name: str) -> None:
    done = project.make("new", f"CASE={name}")
    assert done.returncode != 0
    assert f'CASE is "{name}"; a case is named with letters, digits, _ and -' in done.stderr
    assert [path.name for path in (project.folder / "data").iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("settings", "mode", "why"),
    [
        ((), "local", "without a GPU the containers add nothing"),
        (("GPU=yes",), "local", "docker does not answer"),
        (("GPU=yes", "MODE=docker"), "docker", "asked for"),
    ],
)
def test_where_steps_run_is_found_out_and_said(
    project: Project,
    settings: tuple[str, ...],
    mode: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a docker command whose daemon is not there."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    shown = project.make("help", "GPU=no" if not settings else "V=", *settings).stdout
    assert f"  MODE={mode}   where steps run: docker or local ({why})" in shown


def test_a_docker_that_answers_is_used_with_a_gpu(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project.folder / "fakes"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\necho 28.2.2\n")
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4'\n")
    for name in ("docker", "nvidia-smi"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    shown = project.make("help").stdout
    assert (
        "MODE=docker   where steps run: docker or local (there is a GPU and docker answers)"
        in shown
    )
    assert "GPU=yes   whether a GPU is used (nvidia-smi lists one)" in shown
