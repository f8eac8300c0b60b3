"""Publishing: the next number, whole or not at all, and nothing that stands is touched."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from scripts.files import sha256
from scripts.publish_model import main

REPOSITORY = Path("model_repository")
MODEL = REPOSITORY / "toy"
REPORT = Path("results/toy/report.json")


def write_candidate(variant="onnx_fp32", content=b"weights"):
    folder = REPOSITORY / f"toy_{variant}"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1/model.onnx").write_bytes(content)
    config = f'name: "toy_{variant}"\nbackend: "onnxruntime"\nmax_batch_size: 4\n'
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def write_report(variant="onnx_fp32", threshold=0.25):
    reasons = ["no converted variant passes every gate"]
    recommendation = {"variant": variant, "threshold": threshold, "reasons": reasons}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    content = {"case": "toy", "recommendation": recommendation}
    REPORT.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_candidate()
    write_report()


def publish():
    arguments = [str(REPORT), "--repository", str(REPOSITORY), "--out", f"{MODEL}/config.pbtxt"]
    return CliRunner().invoke(main, arguments)


def published(number):
    result = publish()
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"model_repository/toy/{number}: ")
    return json.loads((MODEL / f"{number}.json").read_text(encoding="utf-8"))


def state(folder=MODEL):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def versions():
    return sorted(path.name for path in MODEL.iterdir() if path.is_dir())


def test_the_first_version():
    note = published(1)
    assert note == {
        "version": 1,
        "variant": "onnx_fp32",
        "threshold": 0.25,
        "report": {"results/toy/report.json": sha256(REPORT)},
        "files": {"model.onnx": sha256(REPOSITORY / "toy_onnx_fp32/1/model.onnx")},
    }
    assert (MODEL / "1/model.onnx").read_bytes() == b"weights"
    assert sorted(path.name for path in MODEL.iterdir()) == ["1", "1.json", "config.pbtxt"]


def test_the_config_has_the_name_of_the_folder():
    published(1)
    config = text_format.Parse((MODEL / "config.pbtxt").read_text("utf-8"), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("toy", "onnxruntime", 4)


def test_the_same_files_are_not_published_twice():
    published(1)
    before = state()
    published(1)
    assert state() == before
    assert versions() == ["1"]


def test_other_files_become_the_next_version_and_the_earlier_one_stays():
    published(1)
    first = state()
    write_candidate(content=b"other weights")
    published(2)
    assert versions() == ["1", "2"]
    assert (MODEL / "2/model.onnx").read_bytes() == b"other weights"
    after = state()
    for path in (f"{MODEL}/1/model.onnx", f"{MODEL}/1.json"):
        assert after[path] == first[path]


def test_an_earlier_model_published_again_is_a_new_version():
    published(1)
    write_candidate(content=b"other weights")
    published(2)
    write_candidate(content=b"weights")
    published(3)
    assert versions() == ["1", "2", "3"]
    assert (MODEL / "3/model.onnx").read_bytes() == b"weights"


def test_another_variant_becomes_the_next_version():
    published(1)
    write_candidate("onnx_fp16", b"half the weights")
    write_report("onnx_fp16", threshold=0.5)
    note = published(2)
    assert (note["variant"], note["threshold"]) == ("onnx_fp16", 0.5)
    config = text_format.Parse((MODEL / "config.pbtxt").read_text("utf-8"), ModelConfig())
    assert config.name == "toy"


def test_the_next_number_is_one_above_the_highest_as_a_number():
    for number in (2, 9, 10):
        (MODEL / str(number)).mkdir(parents=True)
        (MODEL / str(number) / "model.onnx").write_bytes(b"old")
    (MODEL / "notes").mkdir()
    (MODEL / "007").mkdir()
    (MODEL / "99.json").write_text("{}", encoding="utf-8")
    published(11)


def test_a_second_file_of_weights_is_published_too():
    candidate = REPOSITORY / "toy_onnx_fp32/1"
    (candidate / "model.onnx.data").write_bytes(b"two gigabytes")
    note = published(1)
    assert set(note["files"]) == {"model.onnx", "model.onnx.data"}
    assert (MODEL / "1/model.onnx.data").read_bytes() == b"two gigabytes"
    (candidate / "model.onnx.data").write_bytes(b"other gigabytes")
    published(2)


def test_what_does_not_belong_to_the_model_is_not_published():
    """A left-over beside the candidate would also make every run a new version."""
    (REPOSITORY / "toy_onnx_fp32/1/.model.onnx.7.tmp").write_bytes(b"half a model")
    published(1)
    assert [path.name for path in (MODEL / "1").iterdir()] == ["model.onnx"]
    published(1)
    assert versions() == ["1"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_publish_leaves_no_half_version(monkeypatch, error):
    published(1)
    before = state()
    write_candidate(content=b"other weights")

    def half_a_copy(source, target, *_, **__):
        Path(target).mkdir(parents=True)
        (Path(target) / "model.onnx").write_bytes(b"oth")
        raise error

    def half_a_file(source, target, *_, **__):
        Path(target).write_bytes(b"oth")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", half_a_copy)
        for name in ("copy", "copy2", "copyfile"):
            patch.setattr(shutil, name, half_a_file)
        assert publish().exit_code != 0
    assert state() == before
    assert versions() == ["1"]
    published(2)


def test_what_a_killed_publish_left_is_no_version_and_no_hindrance():
    published(1)
    left = MODEL / ".2.4711.tmp"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"oth")
    write_candidate(content=b"other weights")
    published(2)
    assert (MODEL / "2/model.onnx").read_bytes() == b"other weights"


def test_a_publish_killed_after_its_note_is_made_again():
    published(1)
    shutil.rmtree(MODEL / "1")
    (MODEL / "config.pbtxt").unlink()
    assert published(1)["variant"] == "onnx_fp32"
    assert (MODEL / "config.pbtxt").is_file()
    assert versions() == ["1"]


def test_nothing_is_published_when_nothing_is_recommended():
    published(1)
    before = state()
    write_report(variant=None, threshold=None)
    result = publish()
    assert result.exit_code == 1
    assert result.output == (
        "Error: Nothing was published: no converted variant passes every gate. The reasons stand in "
        "results/toy/report.md; what was in production stays.\n"
    )
    assert state() == before


def test_nothing_recommended_makes_no_folder():
    write_report(variant=None, threshold=None)
    assert publish().exit_code == 1
    assert not MODEL.exists()


@pytest.mark.parametrize("missing", ["1/model.onnx", "1", "config.pbtxt", "."])
def test_a_candidate_that_is_not_whole_is_refused_in_a_sentence(missing):
    path = REPOSITORY / "toy_onnx_fp32" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = publish()
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback instead of a sentence"
    assert "toy_onnx_fp32" in result.output
    assert "make all" in result.output
    assert not MODEL.exists() or versions() == []


def test_without_a_report_the_message_names_it():
    REPORT.unlink()
    result = publish()
    assert result.exit_code == 1
    assert "results/toy/report.json is missing" in result.output
