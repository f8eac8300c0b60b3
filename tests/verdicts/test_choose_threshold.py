"""The step that fixes the threshold: by the case's policy, and what it refuses."""

import json
from fractions import Fraction

import numpy as np
import pytest

from scripts.verdicts import choose_threshold
from scripts.verdicts.policies import guaranteed, widest_gap
from scripts.verdicts.thresholds import choose_threshold as highest_recall
from tests.toy_case import run, says

N = 2000


def data(noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    s = random.normal(0, 2, N).astype(np.float32)
    return s, (s + random.normal(0, noise, N) > 0).astype(np.uint8)


def rules(toy, text):
    toy.change("precision = 0.9\n", f"precision = 0.9\n[threshold]\n{text}\n")


def step(toy, s, y):
    toy.results.mkdir(parents=True, exist_ok=True)
    np.save(toy.results / "logits.npy", np.asarray(s, np.float32))
    np.save(toy.results / "labels.npy", np.asarray(y, np.uint8))
    return run(choose_threshold.main, toy.toml, "--logits", toy.results / "logits.npy", "--labels",
               toy.results / "labels.npy", "--out", toy.results / "threshold.json")  # fmt: skip


def chosen(toy, s, y):
    result = step(toy, s, y)
    assert result.exit_code == 0, result.output
    return json.loads((toy.results / "threshold.json").read_text())


@pytest.mark.parametrize(
    ("text", "policy", "guarantee", "wanted"),
    [
        ("", "max_recall", None, lambda s, y, p: highest_recall(s, y, p)),
        ('policy = "max_recall"', "max_recall", None, lambda s, y, p: highest_recall(s, y, p)),
        ('policy = "widest_gap"', "widest_gap", None, lambda s, y, p: widest_gap(s, y, p, 0.005)),
        ('policy = "widest_gap"\nrecall_slack = 0.2', "widest_gap", None,
         lambda s, y, p: widest_gap(s, y, p, 0.2)),
        ("guarantee = 0.8", "guarantee", 0.8, lambda s, y, p: guaranteed(s, y, p, 0.8)),
    ],
)  # fmt: skip
def test_the_policy_of_the_case_chooses(toy, text, policy, guarantee, wanted):
    s, y = data()
    rules(toy, text)
    found = chosen(toy, s, y)
    threshold = wanted(s, y, Fraction(9, 10))
    assert (found["policy"], found["guarantee"]) == (policy, guarantee)
    assert found["wanted_precision"] == 0.9
    assert found["metrics"]["logit"] == threshold.logit
    assert found["metrics"]["recall"] == threshold.recall
    assert found["metrics"]["predicted_positives"] == threshold.predicted_positives
    same = found["policies"][policy]
    assert same["logit"] == threshold.logit
    assert set(found["policies"]) == {"max_recall", "widest_gap", "bounded", "guarantee"}


def test_the_policies_differ_here():
    """Else the test above could not tell them apart."""
    s, y = data()
    p = Fraction(9, 10)
    found = {highest_recall(s, y, p).logit, widest_gap(s, y, p, 0.005).logit,
             widest_gap(s, y, p, 0.2).logit, guaranteed(s, y, p, 0.8).logit}  # fmt: skip
    assert len(found) == 4


def test_the_line_it_prints(toy):
    result = step(toy, [3, 2, 1, 0], [1, 1, 0, 0])
    assert result.output == (
        "threshold: logit >= 1.5 gives precision 1.0000 (2 of 2) and recall 1.0000\n"
    )


def test_an_open_gap_is_null(toy):
    assert chosen(toy, [3, 2] + [1] * 18, [0] + [1] * 19)["metrics"]["gap_low"] is None


def test_a_precision_out_of_reach(toy):
    text = says(
        step(toy, [3, 2, 1, 0], [0, 1, 0, 1]), "toy: no threshold reaches a precision of 0.9"
    )
    assert "Are positive or positive_class the wrong way round? " in text
    assert text.endswith("Set precision in data/toy/case.toml to at most that, or train a better model.\n")  # fmt: skip
    text = says(step(toy, -np.arange(10), [0, 1, 1, 1] + [0] * 6), "the highest is 0.7500")
    assert "wrong way round" not in text


def test_no_guarantee_with_this_much_data(toy):
    rules(toy, "guarantee = 0.95")
    s, y = data(noise=0.1)
    text = says(
        step(toy, s[:60], y[:60]), "toy: no threshold can be guaranteed with this much data"
    )
    assert text.endswith(
        "Bring more labelled samples, or leave guarantee out of data/toy/case.toml.\n"
    )


def test_no_guarantee_that_more_data_would_give(toy):
    """It does not ask for what it has just said will not help."""
    rules(toy, "guarantee = 0.95")
    s, y = data(noise=9)
    text = says(step(toy, s, y), "toy: no threshold can be guaranteed and more data will not help")
    assert "Bring more" not in text
    assert text.endswith("Lower precision, or leave guarantee out of data/toy/case.toml.\n")


@pytest.mark.parametrize(
    ("s", "y", "message"),
    [
        ([1, np.nan], [1, 0], "the logits hold NaN or infinity"),
        ([1, 2], [1, 1], "2 of 2 labels are positive; both classes are needed"),
        ([], [], "no samples: there is nothing to choose a threshold from"),
        ([1, 2, 3], [1, 0], "3 logits and 2 flags"),
    ],
)
@pytest.mark.parametrize("text", ["", 'policy = "widest_gap"', "guarantee = 0.95"])
def test_what_cannot_be_chosen_from(toy, text, s, y, message):
    rules(toy, text)
    says(step(toy, s, y), f"results/toy/logits.npy: {message}.")
    assert not (toy.results / "threshold.json").exists()
