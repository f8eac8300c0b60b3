"""report.json from a small case that every real step ran on, and what conclude refuses."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from scripts.backends.onnxruntime import check_bfloat16, check_range, convert_fp16, convert_mixed
from scripts.backends.onnxruntime import convert_fp32 as export_onnx
from scripts.backends.onnxruntime import convert_int8 as quantize_int8
from scripts.backends.pytorch import trace_torchscript
from scripts.case.read_case import read_case
from scripts.case.rules import Rules
from scripts.data import read_samples
from scripts.families.torch import check_model
from scripts.files import sha256
from scripts.release import conclude, facts
from scripts.repair import repair_verdicts
from scripts.score import compare_layers, measure_latency, repeat_scoring, score_variant
from scripts.triton import write_config
from scripts.variants import BY_NAME, part
from scripts.verdicts import choose_threshold, compare_verdicts, state_claims

pytestmark = pytest.mark.xdist_group("conclude")  # what is set up once for all is set up once

CASE = """
precision = 0.8
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 4
[[inputs]]
name = "x"
shape = [4]
dtype = "float32"
file = "inputs.npy"
[labels]
file = "labels.npy"
"""
MODEL = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
"""
TOML = "data/toy/case.toml"
R = "results/toy"
AGAIN = "make clean CASE=toy && make all CASE=toy MODE=local GPU=no"
MEASURED = ("torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_fp16", "onnx_int8")


def step(module, *arguments):
    result = CliRunner().invoke(module.main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def artefact(variant):
    if variant == "torch_fp32":
        return "data/toy/weights.pth"
    ending = "pt" if variant.startswith("torchscript") else "onnx"
    return f"model_repository/toy_{variant}/1/model.{ending}"


def ends(variant):
    """What tells the inputs and outputs of a variant."""
    script = variant.startswith("torchscript")
    return f"{R}/torch_fp32.check.json" if script else artefact(variant)


def make_data(folder):
    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(CASE, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    torch.save(network.state_dict(), folder / "weights.pth")
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 4)).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(inputs)).numpy()[:, 0]
    noise = random.normal(size=200) * 0.3 * logits.std()
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", (logits + noise > np.median(logits)).astype(np.uint8))


def run_all(mode="local"):
    """What make runs, in its order."""
    samples = ["--samples", f"{R}/samples.json"]
    where = ["--mode", mode, "--device", "cpu"]
    reference = f"{R}/torch_fp32.logits.npy"
    step(read_samples, TOML, "--out", f"{R}/samples.json")
    step(check_model, TOML, *samples, "--out", f"{R}/torch_fp32.check.json")
    step(trace_torchscript, TOML, *samples, "--device", "cpu",
         "--out", artefact("torchscript_fp32"))  # fmt: skip
    step(export_onnx, TOML, *samples, "--out", artefact("onnx_fp32"))
    step(convert_fp16, TOML, *samples, "--model", artefact("onnx_fp32"),
         "--out", artefact("onnx_fp16"))  # fmt: skip
    step(quantize_int8, TOML, *samples, "--model", artefact("onnx_fp32"),
         "--out", artefact("onnx_int8"))  # fmt: skip
    for variant in MEASURED:
        run_score(variant, where)
    threshold = f"{R}/torch_fp32.threshold.json"
    step(choose_threshold, TOML, "--logits", reference, "--labels", f"{R}/labels.npy",
         "--out", threshold)  # fmt: skip
    step(check_range, TOML, *samples, *where, "--model", artefact("onnx_fp32"),
         "--out", f"{R}/onnx_fp32.range.json")  # fmt: skip
    step(check_bfloat16, TOML, *samples, *where, "--model", artefact("onnx_fp32"),
         "--out", f"{R}/onnx_bf16.support.json")  # fmt: skip
    repaired = []
    for variant in ("onnx_fp16", "onnx_int8"):
        mixed = f"{variant}_mixed"
        step(repair_verdicts, TOML, "--variant", variant, *samples, *where,
             "--source", artefact("onnx_fp32"), "--logits", f"{R}/{variant}.logits.npy",
             "--reference", reference, "--threshold", threshold,
             "--out", f"{R}/{mixed}.repair.json")  # fmt: skip
        if read(f"{mixed}.repair.json")["made"]:
            repaired.append(mixed)
            step(convert_mixed, TOML, *samples, "--repair", f"{R}/{mixed}.repair.json",
                 "--source", artefact("onnx_fp32"), "--out", artefact(mixed))  # fmt: skip
            run_score(mixed, where)
    measured = [*MEASURED, *repaired]
    for variant in measured:
        step(compare_verdicts, "--variant", variant, "--logits", f"{R}/{variant}.logits.npy",
             "--reference", reference, "--labels", f"{R}/labels.npy", *samples,
             "--threshold", threshold, "--out", f"{R}/{variant}.verdicts.json")  # fmt: skip
        step(repeat_scoring, TOML, "--variant", variant, *samples, *where,
             "--model", artefact(variant), "--logits", f"{R}/{variant}.logits.npy",
             "--verdicts", f"{R}/{variant}.verdicts.json",
             "--out", f"{R}/{variant}.repeats.json")  # fmt: skip
        if variant != "torch_fp32":
            span = ["--range", f"{R}/onnx_fp32.range.json"] if "fp16" in variant else []
            step(part(variant, "prove"), "--variant", variant, "--model", artefact(variant), *span,
                 "--out", f"{R}/{variant}.precision.json")  # fmt: skip
            step(write_config, TOML, "--variant", variant, "--model", ends(variant),
                 "--gpu", "no", "--out",
                 f"model_repository/toy_{variant}/config.pbtxt")  # fmt: skip
    for variant in measured[3:]:
        step(compare_layers, TOML, "--variant", variant, *samples,
             "--model", artefact(variant), "--source", artefact("onnx_fp32"),
             "--logits", f"{R}/{variant}.logits.npy", "--reference", reference,
             "--threshold", threshold, "--out", f"{R}/{variant}.layers.json")  # fmt: skip
    models = [f"{variant}={artefact(variant)}" for variant in measured]
    state(measured[1:])
    step(measure_latency, TOML, *where, *samples, "--out", f"{R}/latency.json", *models)


def state(variants, served="no"):
    step(state_claims, TOML, "--results", R, "--samples", f"{R}/samples.json", "--served", served,
         "--out", f"{R}/claims.json", *variants)  # fmt: skip


def run_score(variant, where):
    step(score_variant, TOML, "--variant", variant, "--samples", f"{R}/samples.json", *where,
         "--model", artefact(variant), "--out", f"{R}/{variant}.logits.npy")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which all steps but the last ran."""
    folder = tmp_path_factory.mktemp("project")
    make_data(folder / "data/toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(measure_latency, "SECONDS", 0.1)
        run_all()
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it, to spoil."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def shipped():
    """Every variant that ran but the reference."""
    ran = [name for name in BY_NAME if Path(R, f"{name}.verdicts.json").exists()]
    return [name for name in ran if name != "torch_fp32"]


def command(*more):
    arguments = [TOML, "--results", R, "--mode", "local", "--why-mode", "no Docker here"]
    arguments += ["--gpu", "no", "--why-gpu", "none found", "--release", "none"]
    arguments += ["--served", "no", "--out", f"{R}/report.json"]
    return CliRunner().invoke(conclude.main, [*arguments, *more])


def read(name):
    return json.loads(Path(R, name).read_text(encoding="utf-8"))


def change(name, **more):
    content = read(name) | more
    Path(R, name).write_text(json.dumps(content), encoding="utf-8")


def change_verdicts(variant, **more):
    """And what was computed from them: the scoring under other conditions."""
    change(f"{variant}.verdicts.json", **more)
    path = f"{R}/{variant}.verdicts.json"
    inputs = read(f"{variant}.repeats.json")["inputs"] | {path: sha256(Path(path))}
    change(f"{variant}.repeats.json", inputs=inputs)


def report_of(project):
    result = command()
    assert result.exit_code == 0, result.output
    return read("report.json")


def check_refused(result, *words):
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback instead of a sentence"
    assert result.output.startswith("Error: ")
    for word in words:
        assert word in result.output
    assert not Path(R, "report.json").exists()


def test_the_line_it_prints_is_the_recommendation(project):
    result = command()
    assert result.exit_code == 0, result.output
    variant = read("report.json")["recommendation"]["variant"]
    assert variant in MEASURED[1:]
    assert result.output == (
        f"toy: {variant} goes to production; make gate: the evidence is insufficient\n"
    )


def test_the_report_holds_what_programs_need(project):
    report = report_of(project)
    assert (report["case"], report["reference"]) == ("toy", "torch_fp32")
    assert {"logit", "precision", "recall"} <= set(report["threshold"])
    assert set(report["variants"]) == set(BY_NAME)
    for name in MEASURED:
        row = report["variants"][name]
        assert row["measured"] is True
        assert {"total", "positive_to_negative", "negative_to_positive"} <= set(row["flips"])
        assert {"mean", "mean_absolute", "min", "max"} <= set(row["deviation"])
        for against in ("vs_reference", "vs_labels"):
            counts = row[against]
            assert set(counts) == {"tp", "fp", "fn", "tn", "accuracy", "precision", "recall"}
            judged = 200 - (row["calibration"] or {"samples": 0})["samples"]
            assert counts["tp"] + counts["fp"] + counts["fn"] + counts["tn"] == judged
            assert (judged < 200) == (name == "onnx_int8")
        assert "retuned_threshold" in row
    for name in ("trt_fp32", "trt_fp16"):
        row = report["variants"][name]
        assert row["measured"] is False
        assert row["reason"] == "not measured here: needs a GPU"
        assert report["recommendation"]["not_chosen"][name] == row["reason"]
    assert report["recommendation"]["reasons"]
    assert set(report["recommendation"]["not_chosen"]) == set(report["variants"]) - {
        report["recommendation"]["variant"]
    }


def test_the_numbers_are_those_of_the_stored_logits(project):
    report = report_of(project)
    t = report["threshold"]["logit"]
    labels = np.load(f"{R}/labels.npy").astype(bool)
    reference = np.load(f"{R}/torch_fp32.logits.npy").astype(np.float64)
    right = reference >= t
    assert report["threshold"]["precision"] == (right & labels).sum() / right.sum() >= 0.8
    assert report["threshold"]["recall"] == (right & labels).sum() / labels.sum()
    assert (report["samples"], report["positives"]) == (200, labels.sum())
    for name in MEASURED[:4]:
        z = np.load(f"{R}/{name}.logits.npy").astype(np.float64)
        row = report["variants"][name]
        assert row["flips"]["total"] == ((z >= t) != right).sum()
        assert row["deviation"]["mean"] == pytest.approx((z - reference).mean(), abs=1e-12)
        assert row["deviation"]["max"] == pytest.approx((z - reference).max(), abs=1e-12)
        assert row["vs_labels"]["tp"] == ((z >= t) & labels).sum()
        assert row["vs_reference"]["fn"] == ((z < t) & right).sum()
    assert report["variants"]["torch_fp32"]["flips"]["total"] == 0
    assert report["variants"]["torch_fp32"]["deviation"]["max_absolute"] == 0
    assert report["variants"]["onnx_fp16"]["deviation"]["max_absolute"] > 0


def test_the_same_files_give_the_same_bytes(project):
    report_of(project)
    first = Path(R, "report.json").read_bytes()
    report_of(project)
    assert Path(R, "report.json").read_bytes() == first


def test_the_report_needs_no_model_and_no_data(project):
    """On a laptop, from copied results alone: the same facts."""
    wanted = report_of(project)
    shutil.rmtree("model_repository")
    Path("data/toy/inputs.npy").unlink()
    Path("data/toy/weights.pth").unlink()
    assert report_of(project) == wanted


def test_a_variant_left_out_needs_no_results(project):
    for path in Path(R).glob("onnx_fp16.*"):
        path.unlink()
    Path(R, "onnx_fp16_mixed.repair.json").unlink()
    decisions = facts.decide(Path(R), "torch", "local", False, ("onnx_fp16",))
    assert set(decisions) == {"onnx_bf16.support.json", "onnx_int8_mixed.repair.json"}
    reasons = facts.why_not(decisions, "torch", "local", False, ("onnx_fp16",))
    found = decisions | facts.collect(
        Path(R), [name for name, reason in reasons.items() if not reason], False
    )
    report = conclude.conclude("toy", Fraction(4, 5), Rules(), found, reasons)
    assert report["variants"]["onnx_fp16"]["measured"] is False
    assert report["variants"]["onnx_fp16"]["reason"] == 'left out by "skip" in case.toml'
    assert report["recommendation"]["variant"] in ("onnx_fp32", "torchscript_fp32")


def test_no_survivor_is_a_report_too(project):
    for variant in shipped():
        change_verdicts(variant, nonfinite=1)
    state(shipped())
    result = command()
    assert result.exit_code == 0, result.output
    assert result.output == "toy: no variant goes to production; make gate: nothing passes\n"
    report = read("report.json")
    assert report["recommendation"]["variant"] is None
    assert (report["decision"]["exit"], report["decision"]["fallback"]) == (3, "onnx_fp32")


def test_a_moved_threshold_reaches_the_recommendation(project):
    chosen = read("torch_fp32.threshold.json")["metrics"]
    threshold = chosen["logit"] + (chosen["gap_high"] - chosen["logit"]) / 8
    for variant in shipped():
        counts = read(f"{variant}.verdicts.json")["vs_labels"]
        moved = {"threshold": threshold, "flips_after": 0, "vs_labels": counts}
        change_verdicts(variant, retuning=moved)
    state(shipped())
    report = report_of(project)
    assert report["recommendation"]["threshold"] == threshold != chosen["logit"]
    assert report["variants"]["onnx_fp32"]["retuned_threshold"] == threshold


def test_what_is_claimed_is_what_the_gates_are_held_to(project):
    report = report_of(project)
    claims = read("claims.json")
    for name in shipped():
        assert report["variants"][name]["claim"] == claims["variants"][name]
        parity = next(g for g in report["variants"][name]["gates"] if g["gate"] == "parity")
        assert parity["value"] == claims["variants"][name]["flip_rate_upper"]
    assert "claim" not in report["variants"]["torch_fp32"]
    assert report["claims"]["scheme"] == "cross-fitting"
    assert report["claims"]["variants_compared"] == len(shipped())
    assert report["rules"]["flip_rate"] == 0.001
    assert (report["policies"]["policy"], report["policies"]["guarantee"]) == ("max_recall", None)
    assert f"{R}/claims.json" in report["inputs"]
    fallback = report["variants"]["onnx_fp32"]
    missing = fallback["claim"]["samples_wanted"] - 200
    assert fallback["claim"]["flips"] == 0
    assert missing > 2000
    decision = report["decision"]
    assert (decision["exit"], decision["fallback_passes"]) == (4, False)
    recommended = report["variants"][report["recommendation"]["variant"]]["claim"]
    assert recommended["flips"] == 0
    assert decision["samples_missing"] == missing + 200 - recommended["samples"]


def test_refused_claims_release_nothing(project):
    """The step says why instead of bounds: the report is drawn up, and no gate of it is passed."""
    content = {"step": "claims", "inputs": {}, "refused": "fold 1 is empty", "variants": {}}
    Path(R, "claims.json").write_text(json.dumps(content))
    report = report_of(project)
    assert report["claims"] == {"refused": "fold 1 is empty"}
    for name in shipped():
        assert report["variants"][name]["claim"]["samples"] == 0
        states = {g["gate"]: g["state"] for g in report["variants"][name]["gates"]}
        assert states["parity"] == "insufficient"
        assert states["quality"] != "passed"
    assert report["decision"]["exit"] == 4


def test_the_rules_of_the_case_hold(project):
    """No flip in 200 samples: at most 2.2 % with the alpha of four variants."""
    text = Path(TOML).read_text().replace("precision = 0.8\n", "precision = 0.8\n"
                                          "[gates]\nflip_rate = 0.03\nlatency_p99_ms = 9\n", 1)  # fmt: skip
    decisions = facts.decide(Path(R), "torch", "local", False, ())
    reasons = facts.why_not(decisions, "torch", "local", False, ())
    found = decisions | facts.collect(
        Path(R), [name for name, reason in reasons.items() if not reason], False
    )
    Path(TOML).write_text(text)
    rules = read_case(Path(TOML)).rules
    report = conclude.conclude("toy", Fraction(4, 5), rules, found, reasons)
    states = {g["gate"]: g["state"] for g in report["variants"]["onnx_fp32"]["gates"]}
    assert (states["parity"], states["latency"]) == ("passed", "not measured")
    assert report["rules"]["flip_rate"] == 0.03


@pytest.mark.parametrize(
    "name", ["latency.json", "onnx_fp16.verdicts.json", "samples.json", "claims.json"]
)
def test_a_missing_result_is_named_with_a_command(project, name):
    Path(R, name).unlink()
    check_refused(command(), f"{R}/{name} is missing", "make all")


@pytest.mark.parametrize(
    "changed", ["data/toy/weights.pth", "data/toy/inputs.npy", "results/toy/onnx_fp32.logits.npy"]
)
def test_stale_results_are_refused_and_the_message_ends_with_a_command(project, changed):
    with open(changed, "ab") as file:
        file.write(b"more")
    result = command()
    check_refused(result, changed, "than stands there now")
    last = result.output.strip().splitlines()[-1]
    assert "Run: rm results/toy/" in last
    assert last.endswith("&& make all CASE=toy")


def test_the_command_of_the_message_names_a_result_that_is_there(project):
    with open("data/toy/weights.pth", "ab") as file:
        file.write(b"more")
    words = command().output.split()
    assert Path(words[words.index("rm") + 1]).is_file()


def test_two_states_of_a_file_that_is_gone_are_refused(project):
    found = {
        "one.json": {"inputs": {"gone.npy": "0" * 64}},
        "two.json": {"inputs": {"gone.npy": "1" * 64}},
    }
    with pytest.raises(click.ClickException) as caught:
        facts.check_fresh(found, "toy")
    assert caught.value.message == (
        "results/toy/two.json was computed from another gone.npy than one.json was. "
        "Run: rm results/toy/two.json && make all CASE=toy"
    )
    found["two.json"] = found["one.json"]
    facts.check_fresh(found, "toy")


@pytest.mark.parametrize(("key", "value"), [("device", "cuda"), ("mode", "docker")])
@pytest.mark.parametrize("name", ["onnx_fp16.score.json", "latency.json"])
def test_mixed_modes_and_devices_are_refused(project, key, value, name):
    change(name, **{key: value})
    result = command()
    check_refused(result, "mixes modes, devices or releases", value)
    assert result.output.strip().endswith(AGAIN)


def test_mixed_versions_are_refused(project):
    content = read("onnx_fp16.score.json")
    change("onnx_fp16.score.json", versions=content["versions"] | {"onnxruntime": "1.0.0"})
    result = command()
    check_refused(result, "mixes onnxruntime", "1.0.0")
    assert result.output.strip().endswith(AGAIN)


def test_results_of_another_mode_than_the_one_asked_for_are_refused(project):
    """The results say local; a report that says docker would be wrong."""
    check_refused(command("--mode", "docker"), "docker", "local")


def test_results_of_the_cpu_are_no_report_of_a_gpu(project):
    check_refused(command("--gpu", "yes"), "cpu")


def container(image, release, digest="sha256:0"):
    return {"image": f"{image} {release} {digest}", "python": "3.12.3"}


@pytest.fixture
def in_containers(tmp_path, monkeypatch):
    """The same case, its steps told that they run in the pytorch image of release 26.07."""
    monkeypatch.setenv("VERDICT_IMAGE", "pytorch 26.07 sha256:0")
    monkeypatch.setattr(measure_latency, "SECONDS", 0.1)
    make_data(tmp_path / "containers/data/toy")
    monkeypatch.chdir(tmp_path / "containers")
    run_all("docker")


DOCKER = ("--mode", "docker", "--release", "26.07")


def test_the_report_of_containers_says_release_and_images(in_containers):
    result = command(*DOCKER)
    assert result.exit_code == 0, result.output
    conditions = read("report.json")["conditions"]
    assert (conditions["mode"], conditions["release"]) == ("docker", "26.07")
    assert conditions["versions"]["pytorch"]["image"] == "pytorch 26.07 sha256:0"


def test_results_of_another_release_are_refused(in_containers):
    result = command("--mode", "docker", "--release", "26.08")
    check_refused(result, "now asked for: docker 26.08, cpu", "docker 26.07, cpu")
    assert result.output.strip().endswith("make all CASE=toy MODE=docker GPU=no RELEASE=26.08")


def test_results_of_containers_are_no_report_of_local_mode(in_containers):
    check_refused(command(), "now asked for: local, cpu", "docker 26.07, cpu")


def test_two_builds_of_one_image_are_refused(in_containers):
    versions = read("latency.json")["versions"]
    change("latency.json", versions=versions | container("pytorch", "26.07", "sha256:1"))
    check_refused(command(*DOCKER), "mixes image pytorch 26.07 sha256:0 and pytorch 26.07 sha256:1")


def test_two_images_may_have_two_versions_of_a_package(in_containers):
    versions = read("latency.json")["versions"] | {"numpy": "1.26.4"}
    change("latency.json", versions=versions | container("tensorrt", "26.07"))
    result = command(*DOCKER)
    assert result.exit_code == 0, result.output
    assert set(read("report.json")["conditions"]["versions"]) == {"pytorch", "tensorrt"}


def test_two_gpus_are_refused(project):
    change("latency.json", gpu="NVIDIA A10, driver 580.1")
    change("onnx_fp16.score.json", gpu="NVIDIA L4, driver 580.1")
    check_refused(command(), "mixes GPUs", "NVIDIA A10", "NVIDIA L4")


def test_a_verdict_that_depends_on_the_slot_keeps_a_variant_from_production(project):
    change("onnx_fp32.repeats.json", samples=[3])
    change("onnx_fp16.repeats.json", samples=[3, 4])
    change("torch_fp32.repeats.json", samples=[3, 9], noise=[3])
    state(shipped())
    report = report_of(project)
    assert report["recommendation"]["variant"] != "onnx_fp16"
    assert report["recommendation"]["variant"] is not None, "sample 3 changes in the reference too"
    assert report["variants"]["onnx_fp32"]["claim"]["flips"] == 0
    assert report["recommendation"]["not_chosen"]["onnx_fp16"].startswith(
        "fails the gate parity: 1 of 200 samples flip under any condition; at most "
    )
    slot = report["variants"]["onnx_fp16"]["gates"][-1]
    assert (slot["gate"], slot["state"]) == ("batch and slot", "failed")
    assert slot["found"] == (
        "2 verdicts depend on the batch, the slot or the run, 1 of them in the reference too"
    )


def test_a_promotion_by_hand_stands_beside_the_recommendation(project):
    assert report_of(project)["promotion"] is None
    Path(R, "promotion.json").write_text('{"variant": "onnx_fp16"}')
    change("onnx_fp16.repeats.json", samples=[4])
    state(shipped())
    report = report_of(project)
    assert report["promotion"] == {
        "variant": "onnx_fp16",
        "threshold": report["threshold"]["logit"],
        "failed_gates": ["parity", "batch and slot"],
        "open_gates": ["served parity"],
    }
    assert report["recommendation"]["variant"] != "onnx_fp16"
    Path(R, "promotion.json").write_text('{"variant": null}')
    assert report_of(project)["promotion"] is None


def test_what_was_not_measured_cannot_be_promoted(project):
    Path(R, "promotion.json").write_text('{"variant": "trt_fp16"}')
    result = command()
    check_refused(result, "trt_fp16 was promoted by hand, and it is not measured here: needs a GPU")
    assert "make promote VARIANT=recommended CASE=toy" in result.output


def write_served(variant, samples=(), load_samples=()):
    """As score_served and measure_served write it; hand-made, since no server runs here."""
    parity = {"server": {"version": "2.51.0", "native": False, "backend": "onnxruntime"},
              "in_flight": 16, "conditions": {"HTTP, batch 1": {"flips": 0}}, "statistics": {},
              "samples": list(samples), "inputs": {}, "mode": "local", "device": "cpu"}  # fmt: skip
    Path(R, f"{variant}.served.json").write_text(json.dumps(parity))
    level = {"concurrency": 1, "latency_p50_ms": 1.0, "throughput_per_s": 900.0}
    load = {"samples": list(load_samples), "best": level, "levels": [level], "flips": 0,
            "samples_checked": 10}  # fmt: skip
    path = Path(R, "served_latency.json")
    before = json.loads(path.read_text())["variants"] if path.is_file() else {}
    path.write_text(json.dumps({"inputs": {}, "variants": before | {variant: load}}))


def test_what_triton_gave_stands_in_the_report(project):
    for variant in shipped():
        write_served(variant)
    result = command("--served", "yes")
    assert result.exit_code == 0, result.output
    report = read("report.json")
    assert report["conditions"]["served"] == "yes"
    for variant in shipped():
        assert report["variants"][variant]["served"]["server"]["native"] is False
        assert "served parity" in [gate["gate"] for gate in report["variants"][variant]["gates"]]
        assert report["variants"][variant]["served"]["perf"] is None
    assert report["variants"]["torch_fp32"]["served"] is None


def write_perf(variant, place, p50=1.0, throughput=900.0, stable=True):
    """As measure_perf_analyzer writes it."""
    level = {"concurrency": 1, "latency_p50_ms": p50, "throughput_per_s": throughput}
    content = {"best": level, "levels": [level | {"stable": stable}], "inputs": {}, **place}
    Path(R, f"{variant}.perf.json").write_text(json.dumps(content))


PLACE = {"mode": "docker", "device": "cpu", "versions": {"image": "client 26.07 sha256:0",
                                                         "perf_analyzer": "2.60.0"}}  # fmt: skip


def serve_all(perf):
    for variant in shipped():
        write_served(variant)
        change(f"{variant}.served.json", mode="docker",
               versions={"image": "tritonserver 26.07 sha256:0"})  # fmt: skip
        if perf:
            write_perf(variant, PLACE, p50=0.1 if variant == "onnx_fp16" else 1.0)
    change("served_latency.json", mode="docker", versions={"image": "tritonserver 26.07 sha256:0"})


def test_in_containers_the_figures_of_perf_analyzer_decide(in_containers):
    serve_all(perf=True)
    result = command(*DOCKER, "--served", "yes")
    assert result.exit_code == 0, result.output
    report = read("report.json")
    assert report["variants"]["onnx_fp16"]["served"]["perf"]["best"]["latency_p50_ms"] == 0.1
    assert report["variants"]["onnx_fp16"]["served"]["load"]["best"]["latency_p50_ms"] == 1.0
    assert report["conditions"]["versions"]["client"]["perf_analyzer"] == "2.60.0"
    assert f"{R}/onnx_fp16.perf.json" in report["inputs"]
    reason = report["recommendation"]["not_chosen"]["onnx_fp32"]
    assert reason.startswith("slower in Triton: 10.00 times the p50 of onnx_fp16")


def test_in_containers_each_variant_needs_them(in_containers):
    serve_all(perf=False)
    check_refused(command(*DOCKER, "--served", "yes"), ".perf.json is missing; run `make all`")


def test_two_versions_of_perf_analyzer_are_refused(in_containers):
    serve_all(perf=True)
    other = PLACE["versions"] | {"perf_analyzer": "2.59.0"}
    write_perf("onnx_fp16", PLACE | {"versions": other})
    result = command(*DOCKER, "--served", "yes")
    check_refused(result, "mixes perf_analyzer 2.60.0 and 2.59.0")


def test_a_flip_under_load_alone_keeps_a_variant_from_production(project):
    for variant in shipped():
        write_served(variant, load_samples=[5] if variant == "onnx_fp16" else [])
    state(shipped(), served="yes")
    result = command("--served", "yes")
    assert result.exit_code == 0, result.output
    report = read("report.json")
    assert report["recommendation"]["not_chosen"]["onnx_fp16"].startswith(
        "fails the gate parity: 1 of 200 samples flip under any condition"
    )
    states = {one["gate"]: one for one in report["variants"]["onnx_fp16"]["gates"]}
    assert states["served parity"]["state"] == "failed"
    assert states["served parity"]["found"] == ("1 verdicts differ in Triton from those in process")


def test_a_report_that_is_to_be_served_needs_what_triton_gave(project):
    check_refused(command("--served", "yes"), ".served.json is missing; run `make all`")
