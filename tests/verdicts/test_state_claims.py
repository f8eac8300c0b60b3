"""claims.json from the results of the other steps: what is read, what is written, what is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.data.parts import calibration_rows, half
from scripts.files import sha256
from scripts.verdicts import claims, state_claims
from tests.toy_case import run, says

N = 400
RANDOM = np.random.default_rng(0)
S = RANDOM.normal(0, 2, N).astype(np.float32)
Y = (S + RANDOM.normal(0, 0.1, N) > 0).astype(np.uint8)
T = -0.0625  # the threshold in force
MORE = np.linspace(-3, 3, 101).astype(np.float32)
CLEAR = np.flatnonzero(np.abs(S) > 1)


@pytest.fixture
def ran(toy):
    """The case with 400 samples, the results of the reference, and two variants that agree with it."""
    toy.save("inputs.npy", RANDOM.normal(size=(N, 2)).astype(np.float32))
    toy.save("labels.npy", Y)
    assert toy.read().exit_code == 0
    add(toy, "torch_fp32", S)
    write(toy, "torch_fp32.threshold.json", {"metrics": {"logit": T}})
    for name in ("onnx_fp32", "onnx_fp16"):
        add(toy, name, S)
    return toy


def write(toy, name, content):
    (toy.results / name).write_text(json.dumps(content))


def add(toy, name, logits, samples=(), noise=(), moved=None):
    np.save(toy.results / f"{name}.logits.npy", np.asarray(logits, np.float32))
    retuning = None if moved is None else {"threshold": moved}
    write(toy, f"{name}.verdicts.json", {"threshold": T, "retuning": retuning})
    write(toy, f"{name}.repeats.json", {"samples": list(samples), "noise": list(noise)})


def serve(toy, name, samples=(), under_load=()):
    write(toy, f"{name}.served.json", {"samples": list(samples)})
    path = toy.results / "served_latency.json"
    before = json.loads(path.read_text())["variants"] if path.is_file() else {}
    write(toy, path.name, {"variants": before | {name: {"samples": list(under_load)}}})


def step(toy, *variants, served="no"):
    return run(state_claims.main, toy.toml, "--results", toy.results, "--samples", toy.samples,
               "--served", served, "--out", toy.results / "claims.json", *variants)  # fmt: skip


def stated(toy, *variants, served="no"):
    result = step(toy, *variants, served=served)
    assert result.exit_code == 0, result.output
    return json.loads((toy.results / "claims.json").read_text())


def flips(toy, name, **options):
    return stated(toy, name, **options)["variants"][name]["flips"]


def test_what_it_writes_and_says(ran):
    result = step(ran, "onnx_fp32", "onnx_fp16")
    assert result.output == (
        "claims: cross-fitting, onnx_fp32 0 of 400 flip (at most 0.92% of new ones); "
        "onnx_fp16 0 of 400 flip (at most 0.92% of new ones)\n"
    )
    found = json.loads((ran.results / "claims.json").read_text())
    assert found["step"] == "claims"
    assert {"numpy", "scipy", "python", "image"} == set(found["versions"])
    assert (found["scheme"], found["variants_compared"]) == ("cross-fitting", 2)
    assert list(found["variants"]) == ["onnx_fp32", "onnx_fp16"]
    for path, digest in found["inputs"].items():
        assert sha256(Path(path)) == digest
    ends = ("logits.npy", "repeats.json")
    assert set(found["inputs"]) == {
        "data/toy/case.toml", "results/toy/samples.json", "results/toy/labels.npy",
        "results/toy/torch_fp32.threshold.json",
        *(f"results/toy/{name}.{end}" for name in ("torch_fp32", "onnx_fp32", "onnx_fp16") for end in ends),
        *(f"results/toy/{name}.verdicts.json" for name in ("onnx_fp32", "onnx_fp16")),
    }  # fmt: skip


def test_the_same_files_give_the_same_bytes(ran):
    stated(ran, "onnx_fp32")
    first = (ran.results / "claims.json").read_bytes()
    stated(ran, "onnx_fp32")
    assert (ran.results / "claims.json").read_bytes() == first


def test_planted_flips_are_counted_in_their_variant(ran):
    z = S.copy()
    z[CLEAR[:3]] *= -1
    add(ran, "onnx_fp16", z)
    found = stated(ran, "onnx_fp32", "onnx_fp16")["variants"]
    assert (found["onnx_fp32"]["flips"], found["onnx_fp16"]["flips"]) == (0, 3)


def test_flips_in_a_batch_in_triton_and_under_load_are_united(ran):
    add(ran, "onnx_fp16", S, samples=[1, 2])
    serve(ran, "onnx_fp16", [2, 3], [4])
    assert flips(ran, "onnx_fp16") == 2, "Triton was not asked"
    assert flips(ran, "onnx_fp16", served="yes") == 4
    inputs = stated(ran, "onnx_fp16", served="yes")["inputs"]
    assert {"results/toy/onnx_fp16.served.json", "results/toy/served_latency.json"} <= set(inputs)


def test_the_noise_of_the_reference_is_taken_off(ran):
    """Not all samples in which it differs: those where rounding explains it."""
    add(ran, "torch_fp32", S, samples=[1, 2, 3], noise=[1])
    add(ran, "onnx_fp16", S, samples=[1, 2])
    assert flips(ran, "onnx_fp16") == 1


def test_the_deployed_threshold_is_the_re_tuned_one(ran):
    away = float(np.sort(S)[300])
    add(ran, "onnx_fp16", S, moved=away)
    assert flips(ran, "onnx_fp16") == ((S >= T) != (away <= S)).sum() > 0


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("onnx_fp16", np.ones(N, bool)),
        ("onnx_int8", ~np.isin(np.arange(N), calibration_rows(Y))),
        ("onnx_fp16_mixed", ~half(Y)),
        ("onnx_int8_mixed", ~half(Y)),
        ("trt_int8", ~np.isin(np.arange(N), calibration_rows(Y))),
        ("trt_fp16_mixed", ~half(Y)),
    ],
)
def test_what_made_a_variant_does_not_judge_it(ran, name, left):
    add(ran, name, S, samples=range(N))
    row = stated(ran, name)["variants"][name]
    assert row["samples"] == row["flips"] == left.sum()


def test_groups_are_the_units(ran):
    np.save(ran.results / "groups.npy", np.arange(N) // 4)
    content = json.loads(ran.samples.read_text())
    write(ran, "samples.json", content | {"groups": "results/toy/groups.npy"})
    add(ran, "onnx_fp16", S, samples=[4, 5, 6, 40])
    result = step(ran, "onnx_fp16")
    assert result.output.startswith("claims: cross-fitting, onnx_fp16 2 of 100 flip (at most 6.")
    found = json.loads((ran.results / "claims.json").read_text())
    assert found["grouped"] is True
    assert "results/toy/groups.npy" in found["inputs"]


def test_traffic_is_counted_too(ran):
    ran.change('[labels]\nfile = "labels.npy"', '[data]\nunlabelled = "more"\n[labels]\nfile = "labels.npy"')  # fmt: skip
    (ran.folder / "more").mkdir()
    np.save(ran.folder / "more/inputs.npy", np.zeros((101, 2), np.float32))
    z = MORE.copy()
    z[[0, 100]] *= -1
    for name, logits in (("torch_fp32", MORE), ("onnx_fp32", MORE), ("onnx_fp16", z)):
        np.save(ran.results / f"{name}.traffic.npy", logits)
    found = stated(ran, "onnx_fp32", "onnx_fp16")
    assert [found["variants"][name]["traffic"] for name in ("onnx_fp32", "onnx_fp16")] == [
        {"samples": 101, "flips": 0},
        {"samples": 101, "flips": 2},
    ]
    assert found["variants"]["onnx_fp16"]["bounded"] == {"flips": 2, "samples": N + 101}
    assert {f"results/toy/{name}.traffic.npy" for name in ("torch_fp32", "onnx_fp16")} <= set(
        found["inputs"]
    )


def refused(toy, message):
    result = step(toy, "onnx_fp32")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"claims: none, {message}")
    found = json.loads((toy.results / "claims.json").read_text())
    assert found["refused"].startswith(message)
    assert found["variants"] == {}
    assert found["inputs"] and found["versions"]


def test_too_few_of_a_label_is_stated_not_raised(ran):
    np.save(ran.results / "labels.npy", (np.arange(N) < 3).astype(np.uint8))
    refused(ran, "there are 3 positive samples, and 5 folds need one each")


def test_a_precision_that_a_fold_does_not_reach_is_stated(ran):
    np.save(ran.results / "labels.npy", (np.arange(N) % 2).astype(np.uint8))
    add(ran, "torch_fp32", np.zeros(N))
    refused(ran, "without fold 1 of 5, no threshold reaches a precision of 0.9")


def test_no_guarantee_is_stated(ran):
    ran.change("precision = 0.9\n", "precision = 0.9\n[threshold]\nguarantee = 0.999\n")
    labels = Y.copy()
    labels[np.argsort(-S)[:200:8]] = 0
    np.save(ran.results / "labels.npy", labels)
    refused(ran, "without fold 1 of 5, no threshold can be guaranteed")


def test_a_reference_that_is_not_finite_is_stated(ran):
    bad = S.copy()
    bad[9] = np.nan
    add(ran, "torch_fp32", bad)
    refused(ran, "without fold ")


def test_where_no_sample_is_left_it_says_so(ran, monkeypatch):
    monkeypatch.setattr(claims, "PLENTY", 100)
    np.save(ran.results / "groups.npy", np.zeros(N, np.int64))
    content = json.loads(ran.samples.read_text())
    write(ran, "samples.json", content | {"groups": "results/toy/groups.npy"})
    result = step(ran, "onnx_fp32")
    assert result.output == "claims: three parts, no sample is left to judge a variant on\n"


@pytest.mark.parametrize("name", ["onnx_fp32.logits.npy", "onnx_fp32.repeats.json", "torch_fp32.threshold.json"])  # fmt: skip
def test_a_missing_result_is_a_sentence_and_leaves_what_was_there(ran, name):
    stated(ran, "onnx_fp32")
    before = (ran.results / "claims.json").read_bytes()
    (ran.results / name).unlink()
    says(step(ran, "onnx_fp32"), f"results/toy/{name}")
    assert (ran.results / "claims.json").read_bytes() == before
