"""Verdicts against the reference: hand-worked cases, planted flips, and scikit-learn."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

from scripts.data.parts import half
from scripts.verdicts.compare_verdicts import compare, confusion, deviation, flips, main, retuning
from scripts.verdicts.thresholds import choose_threshold


def array(values):
    return np.array(values, np.float32)


def flags(values):
    return np.array(values, bool)


# ---- confusion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_confusion_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    verdicts, truth = random.random(50) < 0.4, random.random(50) < 0.6
    tn, fp, fn, tp = confusion_matrix(truth, verdicts).ravel().tolist()
    assert confusion(verdicts, truth) == {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "accuracy": pytest.approx(accuracy_score(truth, verdicts)),
        "precision": pytest.approx(precision_score(truth, verdicts)),
        "recall": pytest.approx(recall_score(truth, verdicts)),
    }


def test_a_confusion_worked_by_hand():
    found = confusion(flags([1, 1, 1, 0, 0]), flags([1, 1, 0, 1, 0]))
    assert found == {
        "tp": 2, "fp": 1, "fn": 1, "tn": 1, "accuracy": 0.6, "precision": 2 / 3, "recall": 2 / 3,
    }  # fmt: skip


def test_what_cannot_be_divided_is_none():
    none_positive = confusion(flags([0, 0]), flags([1, 0]))
    assert (none_positive["precision"], none_positive["recall"]) == (None, 0.0)
    no_truth = confusion(flags([1, 0]), flags([0, 0]))
    assert (no_truth["precision"], no_truth["recall"]) == (0.0, None)
    nothing = confusion(flags([0, 0]), flags([0, 0]))
    assert (nothing["precision"], nothing["recall"], nothing["accuracy"]) == (None, None, 1.0)


# ---- flips --------------------------------------------------------------------------------------


def test_flips_are_listed_nearest_first_with_names():
    reference = array([3.0, 1.5, 0.5, -4.0, 1.25])
    variant = array([0.0, 0.5, 2.0, -4.0, 1.25])
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    found = flips(variant, reference, flags([1, 0, 1, 0, 1]), 1.0, names)
    assert found["total"] == 3
    assert (found["positive_to_negative"], found["negative_to_positive"]) == (2, 1)
    assert [entry["name"] for entry in found["samples"]] == ["b.png", "c.png", "a.png"]
    assert found["samples"][0] == {
        "index": 1,
        "label": 0,
        "reference_logit": 1.5,
        "variant_logit": 0.5,
        "reference_distance": 0.5,
        "variant_distance": -0.5,
        "name": "b.png",
    }


def test_without_names_there_is_an_index():
    found = flips(array([0.0]), array([2.0]), flags([1]), 1.0, None)
    assert found["samples"][0]["index"] == 0
    assert "name" not in found["samples"][0]


@pytest.mark.parametrize("seed", range(10))
def test_planted_flips_come_back_exactly(seed):
    random = np.random.default_rng(seed)
    reference = random.normal(size=400).astype(np.float32)
    threshold = 0.3
    variant = reference + random.normal(size=400).astype(np.float32) * 1e-6
    variant = np.where((variant >= threshold) == (reference >= threshold), variant, reference)
    planted = set(random.choice(400, int(random.integers(0, 12)), replace=False).tolist())
    for i in planted:
        variant[i] = 2 * threshold - reference[i] + (-1e-3 if reference[i] > threshold else 1e-3)
    found = flips(variant, reference, reference > 0, threshold, None)
    assert {entry["index"] for entry in found["samples"]} == planted
    down = sum(bool(reference[i] >= threshold) for i in planted)
    assert found["positive_to_negative"] == down
    assert found["negative_to_positive"] == len(planted) - down
    distances = [abs(entry["reference_distance"]) for entry in found["samples"]]
    assert distances == sorted(distances)


def test_no_flips_where_nothing_differs():
    reference = array([1, 2, 3])
    found = compare(reference, reference, flags([0, 1, 1]), 1.5, 1.0)
    assert found["flips"] == {
        "total": 0, "positive_to_negative": 0, "negative_to_positive": 0, "samples": [],
    }  # fmt: skip
    assert found["retuning"] is None


def neighbours():
    """Two logits that are next to each other in float32, and the threshold chosen for them."""
    low = np.float32(1)
    logits = array([low, np.nextafter(low, np.float32(2))])
    return logits, choose_threshold(logits, flags([0, 1]), Fraction(1)).logit


def test_a_threshold_between_neighbours_in_float32_is_not_rounded():
    """NumPy compares a float32 array with a Python float in float32."""
    logits, threshold = neighbours()
    found = compare(logits, logits, flags([0, 1]), threshold, 1e-7)
    assert (found["vs_labels"]["tp"], found["vs_labels"]["tn"]) == (1, 1)


def test_a_flip_between_neighbours_in_float32_is_seen():
    logits, threshold = neighbours()
    assert compare(logits[::-1], logits, flags([0, 1]), threshold, 1e-7)["flips"]["total"] == 2
    upper = array([logits[1], logits[1]])
    assert compare(upper, logits, flags([0, 1]), threshold, 1e-7)["flips"]["total"] == 1


# ---- deviation ----------------------------------------------------------------------------------


def test_the_deviation_worked_by_hand():
    found = deviation(array([1.5, 1.0, -2.0, 4.0]), array([1.0, 2.0, -2.0, 3.0]), 0.0)
    assert {key: found[key] for key in ("mean", "mean_absolute", "min", "max", "max_absolute")} == {
        "mean": 0.125,
        "mean_absolute": 0.625,
        "min": -1.0,
        "max": 1.0,
        "max_absolute": 1.0,
    }


def test_the_largest_deviation_counts_below_zero_too():
    found = deviation(array([-3.0, 1.0]), array([0.0, 0.0]), 0.0)
    assert (found["min"], found["max"], found["max_absolute"]) == (-3.0, 1.0, 3.0)


def test_the_deviation_near_the_threshold_is_of_the_nearest_hundred():
    reference = np.arange(-500, 500).astype(np.float32)
    variant = reference + (np.abs(reference) > 50) * np.float32(9)
    found = deviation(variant, reference, 0.25)
    assert found["max"] == 9.0
    near = found["near_threshold"]
    assert (near["samples"], near["max"], near["mean_absolute"]) == (100, 0.0, 0.0)
    assert near["width"] == 49.75


def test_the_deviation_is_computed_in_float64():
    found = deviation(array([1e8] * 3), array([1.0, 1.0, 1.0]), 0.0)
    assert found["mean"] == 99_999_999.0


# ---- logits that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize(("bad", "verdict"), [(math.nan, 0), (-math.inf, 0)])
def test_a_logit_that_is_not_finite_is_counted_and_negative(bad, verdict):
    reference, labels = array([2.0, 2.0, -2.0]), flags([1, 1, 0])
    found = compare(array([bad, 2.0, -2.0]), reference, labels, 0.0, 1.0)
    assert found["nonfinite"] == 1
    assert found["vs_reference"]["fn"] == 1 - verdict
    assert found["flips"]["samples"][0]["variant_logit"] is None
    assert found["flips"]["samples"][0]["variant_distance"] is None
    assert found["deviation"]["mean"] is None
    assert found["retuning"] == {"threshold": None, "reason": "its logits are not all finite"}
    json.dumps(found, allow_nan=False)


def test_an_infinite_logit_never_passes_unseen():
    """The verdict of a logit that is not finite is the negative one, +infinity included."""
    reference = array([2.0, -2.0])
    found = compare(array([math.inf, -2.0]), reference, flags([1, 0]), 0.0, 1.0)
    assert found["nonfinite"] == 1
    assert found["vs_reference"]["fn"] == 1
    assert found["flips"]["total"] == 1


def test_nan_where_the_reference_is_negative_is_counted_too():
    found = compare(array([2.0, math.nan]), array([2.0, -2.0]), flags([1, 0]), 0.0, 1.0)
    assert (found["nonfinite"], found["flips"]["total"]) == (1, 0)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 3, 3), "2 logits, 3 of the reference, 3 labels"),
        ((3, 3, 2), "3 logits, 3 of the reference, 2 labels"),
        ((0, 0, 0), "nothing was compared"),
    ],
)
def test_a_comparison_of_nothing_is_refused(sizes, message):
    z, s, y = (np.zeros(size, np.float32) for size in sizes)
    with pytest.raises(ValueError, match=message):
        compare(z, s, y.astype(bool), 0.0, 1.0)


# ---- the halves and re-tuning -------------------------------------------------------------------


@pytest.mark.parametrize(("positives", "negatives"), [(10, 30), (11, 31), (1, 1), (1, 100), (5, 0)])
def test_the_halves_are_stratified_and_the_same_every_time(positives, negatives):
    labels = np.random.default_rng(9).permutation(flags([1] * positives + [0] * negatives))
    first = half(labels)
    assert (first == half(labels)).all()
    assert first[labels].sum() == (positives + 1) // 2
    assert first[~labels].sum() == (negatives + 1) // 2


def test_the_halves_are_not_the_order_of_the_samples():
    chosen = half(np.arange(1000) % 2 == 0)
    assert 150 < chosen[:500].sum() < 350
    assert not chosen[: len(chosen) // 2].all()


def reference_case(n=2000):
    random = np.random.default_rng(4)
    labels = random.random(n) < 0.4
    reference = (random.normal(size=n) * 2 + labels * 3 - 1).astype(np.float32)
    return reference, labels, random


@pytest.mark.parametrize("bias", [0.5, -0.5, 2.0])
def test_a_pure_bias_is_repaired(bias):
    reference, labels, _ = reference_case()
    variant = reference + np.float32(bias)
    found = compare(variant, reference, labels, 0.7, 0.01)
    tuned = found["retuning"]
    assert found["flips"]["total"] > 50
    assert tuned["threshold"] == tuned["candidate"]
    assert tuned["threshold"] == pytest.approx(0.7 + bias, abs=0.02)
    assert tuned["shift"] == pytest.approx(bias, abs=0.02)
    assert tuned["held_out"]["flips_after"] < tuned["held_out"]["flips_before"]
    assert tuned["tuning"]["flips_after"] == 0
    assert tuned["fewest_flips"] == 0
    assert tuned["separation"] > 0
    assert tuned["crossing"] is None
    sides = [tuned["tuning"], tuned["held_out"]]
    assert sum(side["flips_before"] for side in sides) == found["flips"]["total"]
    assert sum(side["flips_after"] for side in sides) == tuned["flips_after"]
    assert sum(side["samples"] for side in sides) == len(labels)


def test_noise_is_not_repaired():
    reference, labels, random = reference_case()
    refused = 0
    for _ in range(20):
        variant = (reference + random.normal(size=len(reference)) * 0.2).astype(np.float32)
        tuned = compare(variant, reference, labels, 0.7, 0.01)["retuning"]
        held_out = tuned["held_out"]
        assert (tuned["threshold"] is not None) == (
            held_out["flips_after"] < held_out["flips_before"]
        )
        if tuned["threshold"] is None:
            refused += 1
            assert tuned["reason"] in (
                "the flips on the held-out half did not drop",
                "no other threshold leaves fewer flips on the tuning half",
            )
    assert refused >= 5


def test_a_move_that_only_helps_the_tuning_half_is_refused():
    """The tuning half is shifted, the held-out half is not."""
    reference, labels, _ = reference_case()
    variant = reference + np.where(half(labels), np.float32(0.5), np.float32(0))
    tuned = compare(variant, reference, labels, 0.7, 0.01)["retuning"]
    assert tuned["candidate"] == pytest.approx(1.2, abs=0.02)
    assert tuned["held_out"]["flips_before"] == 0
    assert tuned["held_out"]["flips_after"] > 0
    assert tuned["threshold"] is None
    assert tuned["reason"] == "the flips on the held-out half did not drop"


def test_a_flip_in_the_held_out_half_alone_moves_nothing():
    reference, labels, _ = reference_case()
    variant = reference.copy()
    held_out = np.flatnonzero(~half(labels))
    variant[held_out[0]] = 2 * 0.7 - reference[held_out[0]]
    tuned = compare(variant, reference, labels, 0.7, 0.01)["retuning"]
    assert (tuned["candidate"], tuned["threshold"], tuned["shift"]) == (0.7, None, 0.0)
    assert tuned["reason"] == "no other threshold leaves fewer flips on the tuning half"


def test_a_tie_across_the_boundary_is_reported_with_its_samples():
    reference = array([-1, -0.5, 0.5, 1])
    variant = array([-1, 0.5, 0.5, 1])
    labels = flags([0, 0, 1, 1])
    tuned = retuning(variant, reference >= 0, labels, half(labels), 0.0, 1.0, np.arange(4))
    assert tuned["fewest_flips"] == 1
    assert tuned["separation"] == 0.0
    assert tuned["crossing"] == [2, 1]


def test_what_calibrated_a_variant_judges_nothing():
    reference = array([-3, -2, -1, 1, 2, 3, -4, 4])
    labels = flags([0, 0, 0, 1, 1, 1, 0, 1])
    variant = -reference  # every verdict flips
    aside = np.array([1, 4])
    found = compare(variant, reference, labels, 0.0, 1.0, None, aside)
    assert found["samples"] == 6
    assert found["calibration"] == {"samples": 2, "flips": 2}
    assert found["flips"]["total"] == 6
    assert {flip["index"] for flip in found["flips"]["samples"]} == {0, 2, 3, 5, 6, 7}
    assert sum(found["vs_reference"][key] for key in ("tp", "fp", "fn", "tn")) == 6
    held = ~half(labels)
    held[aside] = False
    assert found["held_out"] == {"samples": held.sum(), "flips": held.sum()}
    assert found["retuning"]["tuning"]["samples"] + found["retuning"]["held_out"]["samples"] == 6
    flipped = {flip["index"]: flip for flip in found["flips"]["samples"]}
    assert all(one["reference_logit"] == reference[i] for i, one in flipped.items())


def test_where_everything_calibrated_nothing_is_left_to_judge():
    with pytest.raises(ValueError, match="all 2 samples calibrated the variant"):
        compare(array([-1, 1]), array([-1, 1]), flags([0, 1]), 0.0, 1.0, None, np.arange(2))


def test_one_sample_that_flips_is_no_reason_to_move():
    found = compare(array([-1.0]), array([1.0]), flags([1]), 0.0, 1.0)
    assert found["retuning"]["threshold"] is None
    assert found["retuning"]["held_out"]["samples"] == 0


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("variant.npy", array([3.0, -1.0, 0.5, -2.0]))
    np.save("reference.npy", array([3.0, 1.5, -1.0, -2.0]))
    np.save("labels.npy", np.array([1, 1, 0, 0], np.uint8))
    metrics = {"logit": 0.25, "gap_low": -1.0, "gap_high": 1.5}
    (tmp_path / "threshold.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")
    names = {"names": ["p/0.png", "p/1.png", "n/2.png", "n/3.png"]}
    (tmp_path / "samples.json").write_text(json.dumps(names), encoding="utf-8")
    return tmp_path


def command(logits="variant.npy"):
    arguments = ["--variant", "onnx_fp16", "--logits", logits, "--reference", "reference.npy"]
    arguments += ["--labels", "labels.npy", "--samples", "samples.json"]
    arguments += ["--threshold", "threshold.json", "--out", "verdicts.json"]
    return CliRunner().invoke(main, arguments)


def test_the_command(folder):
    result = command()
    assert result.exit_code == 0, result.output
    assert result.output == "onnx_fp16: 2 flips in 4 samples, largest deviation 2.5\n"
    content = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in content["flips"]["samples"]] == ["p/1.png", "n/2.png"]
    assert content["threshold"] == 0.25
    assert sorted(content["inputs"]) == [
        "labels.npy", "reference.npy", "samples.json", "threshold.json", "variant.npy",
    ]  # fmt: skip


def test_the_command_without_a_logit_below_the_threshold(folder):
    metrics = {"logit": -3.0, "gap_low": None, "gap_high": -2.0}
    (folder / "threshold.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")
    result = command()
    assert result.exit_code == 0, result.output
    assert result.output.startswith("onnx_fp16: 0 flips in 4 samples")


def test_the_command_says_not_finite(folder):
    np.save("variant.npy", array([math.nan, 1, -1, -2]))
    result = command()
    assert result.exit_code == 0, result.output
    assert result.output == "onnx_fp16: 1 flips in 4 samples, largest deviation not finite\n"


def test_the_command_refuses_another_number_of_samples(folder):
    np.save("short.npy", array([1, 2]))
    result = command("short.npy")
    assert result.exit_code == 1
    assert result.output == (
        "Error: short.npy against reference.npy: 2 logits, 4 of the reference, 4 labels.\n"
    )
    assert not (folder / "verdicts.json").exists()
