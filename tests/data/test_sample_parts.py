"""The parts of the data: every sample once, stratified, no group split, the same every time."""

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from scripts.data.parts import (
    CALIBRATE,
    EVALUATE,
    MOST_CALIBRATION,
    SEED,
    TUNE,
    calibration_rows,
    folds,
    half,
    three,
)

Labels = NDArray[np.bool_]
Groups = NDArray[np.int64]
SIZES = [(2, 1), (5, 5), (7, 12), (40, 300), (1000, 77), (3000, 5000)]  # positives, negatives


def some_labels(positives: int, negatives: int, seed: int = 3) -> Labels:
    labels = np.arange(positives + negatives) < positives
    return np.random.default_rng(seed).permutation(labels)


def grouped(seed: int) -> tuple[Labels, Groups]:
    """Groups of very different sizes, some of one label, some of both; codes with holes in them."""
    random = np.random.default_rng(seed)
    count = int(random.integers(12, 200))
    sizes = 1 + random.geometric(0.1, count)
    leaning = random.choice([0.0, 1.0, 0.1, 0.5], count)
    leaning[:10] = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]  # enough of each label for five folds
    code = random.permutation(np.repeat(np.arange(count), sizes))
    return random.random(len(code)) < leaning[code], code * 7 + 3


def counts(part: NDArray[Any], labels: Labels) -> NDArray[np.int64]:
    """Samples of each part (rows) and label (columns: positive, negative)."""
    kinds = [np.bincount(part[labels == kind], minlength=int(part.max()) + 1) for kind in (1, 0)]
    return np.stack(kinds, axis=1)


def is_whole(part: NDArray[Any], groups: Groups) -> bool:
    return all(len(set(part[groups == group].tolist())) == 1 for group in np.unique(groups))


# ---- what cannot be done ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 0, 0, 0, 0, 0], "there are 1 positive samples, and 5 folds need one each"),
        ([1] * 9, "there are 0 negative samples, and 5 folds need one each"),
        ([], "there are 0 positive samples"),
    ],
)
def test_too_few_samples_of_a_label_for_the_folds(labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        folds(np.array(labels, bool))


def test_too_few_groups_of_a_label_for_the_folds() -> None:
    labels, groups = np.arange(40) % 2 == 0, np.arange(40) // 10
    with pytest.raises(ValueError, match="there are 4 groups with a positive sample, and 5 folds"):
        folds(labels, groups)
    assert set(folds(labels, groups, 4).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [-1, 0, 1, 128])
def test_a_number_of_folds_that_cannot_be(count: int) -> None:
    with pytest.raises(ValueError, match=f"^{count} folds were asked for; they can be 2 to 127$"):
        folds(some_labels(500, 500), None, count)


@pytest.mark.parametrize("part", [half, three, calibration_rows, folds])
def test_groups_of_another_number_of_samples_are_refused(part: Any) -> None:
    with pytest.raises(ValueError, match="7 groups of samples, 8 labels"):
        part(some_labels(4, 4), np.arange(7))


# ---- without groups --------------------------------------------------------------------------------


def test_without_groups_the_half_is_the_one_it_always_was() -> None:
    """Written once more, as it stood before there were groups."""
    for positives, negatives in [*SIZES, (0, 9), (9, 0), (1, 1), (0, 0)]:
        labels = some_labels(positives, negatives)
        random = np.random.default_rng(0)
        expected = set[int]()
        for kind in (True, False):
            rows = random.permutation([i for i, label in enumerate(labels) if label == kind])
            expected |= {int(row) for row in rows[: (len(rows) + 1) // 2]}
        assert set(np.flatnonzero(half(labels)).tolist()) == expected


def test_without_groups_the_calibration_rows_are_those_they_always_were() -> None:
    for positives, negatives in [*SIZES, (0, 9), (9, 0), (1, 1), (0, 0)]:
        labels = some_labels(positives, negatives)
        tuning = half(labels)
        random = np.random.default_rng(0)
        share = min(0.25, MOST_CALIBRATION / max(1, tuning.sum()))
        expected = list[int]()
        for kind in (True, False):
            rows = np.flatnonzero(tuning & (labels == kind))
            if len(rows):
                expected += random.permutation(rows)[: max(1, int(len(rows) * share))].tolist()
        rows = calibration_rows(labels)
        assert (rows.dtype, rows.tolist()) == (np.int64, sorted(expected))


@pytest.mark.parametrize(("positives", "negatives"), SIZES)
def test_each_part_has_its_share_of_both_labels_to_within_one_sample(
    positives: int, negatives: int
) -> None:
    labels = some_labels(positives, negatives)
    halves = counts(half(labels).astype(int), labels)
    assert (np.ptp(halves, axis=0) <= 1).all()
    found = counts(three(labels), labels)
    assert (np.abs(found[CALIBRATE] - found[TUNE]) <= 1).all()
    assert (found[EVALUATE] == halves[0]).all()
    if min(positives, negatives) >= 5:
        by_fold = counts(folds(labels), labels)
        assert by_fold.shape == (5, 2) and (by_fold > 0).all()
        assert (np.ptp(by_fold, axis=0) <= 1).all()
        assert np.ptp(by_fold.sum(axis=1)) <= 1


def test_the_folds_are_random_and_another_seed_gives_others() -> None:
    labels = some_labels(500, 500)
    first = folds(labels)
    assert (first != folds(labels, seed=SEED + 1)).mean() == pytest.approx(0.8, abs=0.05)
    assert (first != np.arange(1000) % 5).mean() == pytest.approx(0.8, abs=0.05)
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1


def test_labels_may_be_0_and_1() -> None:
    labels = some_labels(20, 31)
    for part in (half, three, folds, calibration_rows):
        assert np.array_equal(part(labels), part(labels.astype(np.uint8)))


def test_ten_million_samples_take_no_more_than_two_seconds() -> None:
    labels = np.random.default_rng(0).random(10_000_000) < 0.1
    begin = time.process_time()
    found = folds(labels)
    assert time.process_time() - begin < 2
    assert (np.ptp(counts(found, labels), axis=0) <= 1).all()


# ---- with groups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_in_two_parts(seed: int) -> None:
    labels, groups = grouped(seed)
    assert is_whole(half(labels, groups), groups)
    assert is_whole(three(labels, groups), groups)
    fold = folds(labels, groups)
    assert is_whole(fold, groups)
    assert (counts(fold, labels) > 0).all() and fold.dtype == np.int8
    assert (counts(half(labels, groups).astype(int), labels) > 0).all()
    assert (counts(three(labels, groups), labels) > 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_with_groups_the_labels_are_spread_as_evenly_as_the_largest_group_lets(seed: int) -> None:
    labels, groups = grouped(seed)
    largest = counts(np.unique(groups, return_inverse=True)[1], labels).max(axis=0)
    assert (np.ptp(counts(half(labels, groups).astype(int), labels), axis=0) <= largest).all()
    assert (np.ptp(counts(folds(labels, groups), labels), axis=0) <= 2 * largest).all()


def test_the_folds_are_as_even_as_those_of_scikit_learn() -> None:
    """A sanity check: over many data sets, not one by one."""
    ours, theirs = [], []
    for seed in range(20):
        labels, groups = grouped(seed)
        other = np.zeros(len(labels), int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        for k, (_, rows) in enumerate(splitter.split(labels, labels, groups)):
            other[rows] = k
        wanted = np.array([labels.sum(), (~labels).sum()]) / 5
        for fold, spread in ((folds(labels, groups), ours), (other, theirs)):
            spread.append((np.abs(counts(fold, labels) - wanted) / wanted).max())
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


@pytest.mark.parametrize("part", [half, three, calibration_rows, folds])
def test_groups_of_one_sample_each_are_the_same_as_none(part: Any) -> None:
    labels = some_labels(30, 70)
    groups = np.random.default_rng(2).permutation(100)
    assert np.array_equal(part(labels, groups), part(labels))


@pytest.mark.parametrize("part", [half, three, calibration_rows, folds])
def test_the_parts_are_the_same_every_time_and_whatever_the_groups_are_called(part: Any) -> None:
    labels, groups = grouped(4)
    first = part(labels, groups)
    assert np.array_equal(first, part(labels.copy(), groups.copy()))
    assert np.array_equal(first, part(labels, groups * 2 + 5))


def test_every_fold_holds_both_labels_also_where_the_balance_speaks_against_it() -> None:
    """One group holds most of the negatives; greedily, its fold would never get a positive."""
    held = [(0, 700)] + [(20, 100)] * 5
    labels = np.concatenate([[True] * p + [False] * n for p, n in held])
    groups = np.repeat(np.arange(6), [p + n for p, n in held])
    for seed in range(10):
        fold = folds(labels, groups, 5, seed)
        assert (counts(fold, labels) > 0).all() and is_whole(fold, groups)


def test_five_groups_of_each_label_are_enough_in_any_mixture() -> None:
    random = np.random.default_rng(8)
    for _ in range(500):
        both = int(random.integers(0, 6))
        held = [tuple(random.integers(1, 2 ** random.integers(1, 9), 2)) for _ in range(both)]
        for _ in range(5 - both):
            held += [(int(random.integers(1, 50)), 0), (0, int(random.integers(1, 50)))]
        held += [(0, int(random.integers(1, 500))) for _ in range(random.integers(0, 4))]
        labels = np.concatenate([[True] * p + [False] * n for p, n in held])
        groups = np.repeat(np.arange(len(held)), [p + n for p, n in held])
        assert (counts(folds(labels, groups), labels) > 0).all(), held


def test_the_only_group_of_a_label_tunes_and_calibrates() -> None:
    """As the only sample of a label does where there are no groups."""
    for seed in range(10):
        sizes = np.random.default_rng(seed).integers(2, 40, 9)
        groups = np.repeat(np.arange(9), sizes)
        labels = groups == seed % 9
        assert half(labels, groups)[labels].all()
        assert (three(labels, groups)[labels] == CALIBRATE).all()
        assert labels[calibration_rows(labels, groups)].any()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_very_few_groups_are_split_as_far_as_they_go(number: int) -> None:
    labels, groups = np.arange(30) % 3 == 0, np.arange(30) % number
    assert len(np.unique(half(labels, groups))) == min(2, number)
    assert is_whole(three(labels, groups), groups)
    assert len(calibration_rows(labels, groups)) > 0


# ---- how the parts lie to each other ---------------------------------------------------------------


def cases() -> list[tuple[Labels, Groups | None]]:
    plain = [(some_labels(*size), None) for size in SIZES]
    return [*plain, *(grouped(seed) for seed in range(10))]


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{len(case[0])} samples")
def test_the_held_out_half_is_what_is_evaluated(case: tuple[Labels, Groups | None]) -> None:
    part = three(*case)
    assert part.dtype == np.int8 and set(part.tolist()) <= {CALIBRATE, TUNE, EVALUATE}
    assert np.array_equal(part == EVALUATE, ~half(*case))


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{len(case[0])} samples")
def test_the_calibration_rows_lie_inside_calibrate(case: tuple[Labels, Groups | None]) -> None:
    rows = calibration_rows(*case)
    assert (three(*case)[rows] == CALIBRATE).all()
    assert half(*case)[rows].all()
    assert (np.diff(rows) > 0).all(), "sorted, each once"
    assert set(case[0][rows].tolist()) == {True, False}
    quarter = half(*case).sum() / 4
    assert len(rows) <= min(MOST_CALIBRATION, max(2, quarter))
