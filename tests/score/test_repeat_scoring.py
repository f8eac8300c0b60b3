"""Scoring again: models that answer by batch, slot or chance are found out; sound ones are not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from scripts.case.read_case import read_case
from scripts.data.samples import Batch, Samples
from scripts.score import repeat_scoring
from scripts.score.repeat_scoring import conditions, repeat
from tests.toy_case import INPUTS, LOGITS, Toy, run

Z = LOGITS[:, 0].astype(np.float32)  # six logits; batches of at most 4


def score_again(toy: Toy, run: Any, logits: np.ndarray = Z, threshold: float = 0.5) -> Any:
    case = read_case(toy.toml)
    others = conditions(run, case.max_batch)
    return repeat(case, Samples(case, toy.samples), others, logits, threshold, "planted")


def linear(batch: Batch) -> np.ndarray:
    x = batch["x"].astype(np.float64)
    return (x @ np.array([[1.5], [-0.5]]) + 0.25).astype(np.float32)


def test_a_sound_model_gives_the_same_under_every_condition(read_toy: Toy) -> None:
    found = score_again(read_toy, linear)
    assert list(found["conditions"]) == ["again", "other slots", "batch 1", "batch 3"]
    assert found["samples"] == []
    assert found["metrics"]["flips"] == 0
    assert found["metrics"]["deviation_max_absolute"] < 1e-6


def test_wrong_only_in_a_batch(read_toy: Toy) -> None:
    """Right at batch 1; in a batch the last sample gets the opposite answer."""

    def broken(batch: Batch) -> np.ndarray:
        z = linear(batch)
        if len(z) > 1:
            z[-1] = 1 - z[-1]
        return z

    # the ordinary condition is itself a batch of 4 and one of 2
    ordinary = np.concatenate([broken({"x": INPUTS[:4]}), broken({"x": INPUTS[4:]})])[:, 0]
    found = score_again(read_toy, broken, ordinary)
    assert found["conditions"]["again"]["flips"] == 0
    assert found["conditions"]["batch 1"]["flips"] == 2, "samples 3 and 5 stood last"
    assert {3, 5} <= set(found["samples"])


def test_an_answer_that_depends_on_the_slot(read_toy: Toy) -> None:
    def broken(batch: Batch) -> np.ndarray:
        z = linear(batch)
        z[0] += 0.875  # whoever stands first
        return z

    ordinary = np.concatenate([broken({"x": INPUTS[:4]}), broken({"x": INPUTS[4:]})])[:, 0]
    found = score_again(read_toy, broken, ordinary, threshold=0.9)
    expected = []
    for start, stop in ((0, 4), (4, 6)):
        moved = np.roll(broken({"x": np.roll(INPUTS[start:stop], 1, axis=0)}), -1, axis=0)[:, 0]
        changed = (moved >= 0.9) != (ordinary[start:stop] >= 0.9)
        expected += (start + np.flatnonzero(changed)).tolist()
    assert expected, "the planted fault flips something"
    assert found["conditions"]["other slots"]["flips"] == len(expected)
    assert set(expected) <= set(found["samples"])
    assert found["conditions"]["other slots"]["deviation_max_absolute"] == pytest.approx(0.875)


def test_only_what_rounding_explains_is_noise(read_toy: Toy) -> None:
    """Every verdict changes in the next run; one sample lies at the threshold."""
    found = score_again(read_toy, lambda batch: 2 * 1.5 - linear(batch), threshold=1.5)
    assert np.array_equal(np.flatnonzero(np.abs(Z - 1.5) < 1e-3), [0]), "sample 0 has the logit 1.5"
    assert found["noise"] == [i for i in found["samples"] if i == 0]
    assert len(found["samples"]) > 1


def test_a_model_that_gives_another_answer_in_the_next_run(read_toy: Toy) -> None:
    random = np.random.default_rng(0)
    found = score_again(
        read_toy, lambda batch: linear(batch) + random.normal(0, 9, (len(batch["x"]), 1))
    )
    assert found["conditions"]["again"]["flips"] > 0
    assert found["metrics"]["flips"] == len(found["samples"]) > 0


def test_a_logit_that_is_not_finite_is_said_and_is_negative(read_toy: Toy) -> None:
    def broken(batch: Batch) -> np.ndarray:
        z = linear(batch)
        return np.where(len(z) == 1, np.float32(np.nan), z)

    found = score_again(read_toy, broken)
    assert found["conditions"]["batch 1"]["deviation_max_absolute"] is None
    assert found["metrics"]["deviation_max_absolute"] is None
    assert found["conditions"]["batch 1"]["flips"] == (Z >= 0.5).sum()


def test_the_same_nan_twice_is_no_difference(read_toy: Toy) -> None:
    logits = np.full(6, np.nan, np.float32)
    found = score_again(read_toy, lambda batch: np.full((len(batch["x"]), 1), np.nan), logits)
    assert found["metrics"] == {"flips": 0, "deviation_max_absolute": 0.0}


def test_numbers_of_samples_that_differ_are_an_error(read_toy: Toy) -> None:
    with pytest.raises(ValueError, match="5 logits and 6 samples"):
        score_again(read_toy, linear, Z[:5])


@pytest.mark.parametrize(
    ("largest", "names"),
    [
        (1, ["again", "other slots"]),
        (2, ["again", "other slots", "batch 1"]),
        (32, ["again", "other slots", "batch 1", "batch 31"]),
    ],
)
def test_the_sizes_are_one_an_odd_one_and_the_largest(largest: int, names: list[str]) -> None:
    assert list(conditions(linear, largest)) == names


def command(toy: Toy, retuned: float | None = None, device: str = "cpu") -> Result:
    logits, verdicts = toy.results / "torch_fp32.logits.npy", toy.results / "verdicts.json"
    np.save(logits, Z)
    retuning = None if retuned is None else {"threshold": retuned}
    verdicts.write_text(json.dumps({"threshold": 0.5, "retuning": retuning}))
    return run(
        repeat_scoring.main, toy.toml, "--variant", "torch_fp32", "--samples", toy.samples,
        "--model", toy.folder / "weights.pth", "--mode", "local", "--device", device,
        "--logits", logits, "--verdicts", verdicts, "--out", toy.results / "repeats.json",
    )  # fmt: skip


@pytest.mark.parametrize(("retuned", "used"), [(None, 0.5), (0.75, 0.75)])
def test_the_step_uses_the_threshold_that_would_be_served(
    read_toy: Toy, retuned: float | None, used: float
) -> None:
    done = command(read_toy, retuned)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("torch_fp32: 4 other conditions, 0 of 6 verdicts depend on them")
    found = json.loads((read_toy.results / "repeats.json").read_text())
    assert found["threshold"] == used
    assert set(found["inputs"]) > {"results/toy/torch_fp32.logits.npy", "results/toy/verdicts.json"}
    assert not [path for path in Path(read_toy.results).iterdir() if path.suffix == ".tmp"]
