"""Publishing: the next number, whole or not at all, and nothing that stands is touched."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from scripts.files import sha256
from scripts.release.publish_model import main
from scripts.release.rollback_model import main as rollback
from scripts.verdicts.heads import log_odds
from tests.toy_case import TOML, run, says

REPOSITORY = Path("model_repository")
MODEL = REPOSITORY / "toy"
REPORT = Path("results/toy/report.json")


def write_candidate(variant="onnx_fp32", content=b"weights"):
    folder = REPOSITORY / f"toy_{variant}"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1/model.onnx").write_bytes(content)
    config = (
        f'name: "toy_{variant}"\nbackend: "onnxruntime"\nmax_batch_size: 4\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
        'output [ { name: "output" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
    )
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def write_report(variant="onnx_fp32", threshold=0.25, promotion=None):
    reasons = ["no converted variant passes every gate"]
    recommendation = {"variant": variant, "threshold": threshold, "reasons": reasons}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    content = {"case": "toy", "recommendation": recommendation, "promotion": promotion}
    REPORT.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/toy").mkdir(parents=True)
    Path("data/toy/case.toml").write_text(TOML)
    write_candidate()
    write_report()


def publish():
    arguments = [
        "data/toy/case.toml",
        "--report",
        str(REPORT),
        "--repository",
        str(REPOSITORY),
        "--out",
        f"{MODEL}/config.pbtxt",
    ]
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
    assert sorted(path.name for path in MODEL.iterdir()) == [
        "1",
        "1.json",
        "1.pbtxt",
        "config.pbtxt",
    ]


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
        (MODEL / f"{number}.json").write_text("{}", encoding="utf-8")
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
        "results/toy/report.md; what was in production stays. `make promote VARIANT=...` "
        "overrides them.\n"
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


OUTPUT = 'output [ { name: "output" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (OUTPUT, "", "lists the input x and no output"),
        (OUTPUT, OUTPUT + OUTPUT.replace("output\"", "scores\""), "the outputs output, scores"),
        ('input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]\n', "", "lists no input and the output output"),
        ("backend", "backend \x00", "is no configuration that Triton reads"),
        ('"onnxruntime"', '"onnxruntime', "is no configuration that Triton reads"),
    ],
    ids=["no output", "two outputs", "no input", "garbage", "half a string"],
)  # fmt: skip
def test_a_candidate_whose_configuration_is_damaged_is_refused_in_sentences(old, new, words):
    published(1)
    before = state()
    config = write_candidate(content=b"other weights") / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    assert text.count(old) == 1
    config.write_text(text.replace(old, new), encoding="utf-8")
    says(publish(), config, words, "Remove it and run `make all`")
    assert state() == before


def test_without_a_report_the_message_names_it():
    REPORT.unlink()
    result = publish()
    assert result.exit_code == 1
    assert "results/toy/report.json is missing" in result.output


# ---- what clients are to ask ---------------------------------------------------------------------

DECISION, VERDICT = REPOSITORY / "toy_decision", REPOSITORY / "toy_verdict"


def config_of(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), ModelConfig())


def served(folder):
    return list(config_of(folder).version_policy.specific.versions)


def test_the_threshold_stands_with_what_applies_it_to_the_last_digit():
    write_report(threshold=0.1 + 0.2)
    published(1)
    parameters = config_of(DECISION).parameters
    assert float(parameters["threshold"].string_value) == 0.1 + 0.2
    assert parameters["head"].string_value == "logit"
    assert parameters["positive_class"].string_value == "1"
    assert parameters["variant"].string_value == "onnx_fp32"


def test_the_ensemble_leads_from_the_inputs_to_the_verdict():
    published(1)
    config = config_of(VERDICT)
    assert [(one.name, list(one.dims)) for one in config.input] == [("x", [2])]
    assert [one.name for one in config.output] == ["logit", "verdict", "threshold"]
    steps = config.ensemble_scheduling.step
    assert [(one.model_name, one.model_version) for one in steps] == [
        ("toy", 1),
        ("toy_decision", 1),
    ]
    assert dict(steps[0].output_map) == {"output": "raw"}
    assert (VERDICT / "1").is_dir()
    assert [served(one) for one in (MODEL, DECISION, VERDICT)] == [[1], [1], [1]]


def test_serving_and_evaluation_run_the_same_function():
    published(1)
    copy = DECISION / "1/heads.py"
    source = Path(log_odds.__code__.co_filename)
    assert copy.read_bytes() == source.read_bytes()


def test_another_threshold_alone_is_another_version():
    published(1)
    write_report(threshold=0.5)
    published(2)
    assert versions() == ["1", "2"]
    assert config_of(DECISION).parameters["threshold"].string_value == "0.5"
    assert [served(one) for one in (MODEL, DECISION, VERDICT)] == [[2], [2], [2]]


def test_what_was_promoted_by_hand_is_published():
    write_candidate("onnx_fp16", b"half")
    write_report(
        promotion={"variant": "onnx_fp16", "threshold": 0.75, "failed_gates": [], "open_gates": []}
    )
    assert published(1)["variant"] == "onnx_fp16"


def test_rollback_serves_the_version_before_and_touches_none():
    published(1)
    write_candidate("onnx_fp16", b"half")
    write_report("onnx_fp16", threshold=0.5)
    published(2)
    before = state(REPOSITORY)
    done = run(rollback, "toy", "--repository", REPOSITORY)
    assert done.exit_code == 0, done.output
    assert done.output == "model_repository/toy: version 1 (onnx_fp32) in place of 2\n"
    assert [served(one) for one in (MODEL, DECISION, VERDICT)] == [[1], [1], [1]]
    assert config_of(DECISION).parameters["threshold"].string_value == "0.25"
    after = state(REPOSITORY)
    assert {path for path in after if after[path] != before[path]} == {
        f"{folder}/config.pbtxt" for folder in (MODEL, DECISION, VERDICT)
    }
    again = run(rollback, "toy", "--repository", REPOSITORY)
    assert again.exit_code == 1
    assert "serves version 1, and there is none before it" in again.output
    published(2)
    assert served(VERDICT) == [2]


def test_rollback_without_a_production_model_says_so():
    done = run(rollback, "toy", "--repository", REPOSITORY)
    assert done.exit_code == 1
    assert "There is no production model in model_repository/toy yet. Run `make all`" in done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\xff", "is no configuration that Triton reads"),
        (b'name: "toy_verdict"\n', "names no version in version_policy"),
        (b"version_policy { specific { versions: [1, 2] } }", "names the versions 1, 2"),
        (b"version_policy { specific { versions: [2] } }", "names version 2 in version_policy, and not 1"),
    ],
)  # fmt: skip
def test_a_damaged_version_is_not_put_into_production(content, words):
    published(1)
    write_candidate(content=b"other weights")
    published(2)
    (VERDICT / "1.pbtxt").write_bytes(content)
    before = state(REPOSITORY)
    says(run(rollback, "toy", "--repository", REPOSITORY), VERDICT / "1.pbtxt", words, "Remove it")
    assert state(REPOSITORY) == before
    (VERDICT / "1.pbtxt").unlink()
    says(run(rollback, "toy", "--repository", REPOSITORY), "there is none before it")


def test_rollback_from_a_damaged_configuration_says_so():
    published(1)
    (MODEL / "config.pbtxt").write_text("version_policy {")
    says(run(rollback, "toy", "--repository", REPOSITORY), MODEL / "config.pbtxt", "Remove it")
    (MODEL / "config.pbtxt").unlink()
    published(1)
    assert served(MODEL) == [1]


def test_a_version_is_the_same_however_its_configuration_is_written():
    published(1)
    for folder in (MODEL, DECISION, VERDICT):
        path = folder / "1.pbtxt"
        config = text_format.Parse(path.read_text("utf-8"), ModelConfig())
        path.write_text(text_format.MessageToString(config))
    before = {path: content for path, content in state().items() if "1.pbtxt" in path}
    published(1)
    assert before.items() <= state().items()
    assert versions() == ["1"]


def test_a_reader_of_the_production_model_finds_why():
    published(1)
    for folder in (MODEL, DECISION, VERDICT):
        lines = (folder / "config.pbtxt").read_text("utf-8").splitlines()
        place = lines.index("version_policy { specific { versions: [1] } }")
        assert lines[place - 1].startswith("# The version that is served")
