"""Which samples do what: the parts of the labelled data, the same for every variant.

A half tunes (re-tuned thresholds, repairs), the other half is held out and judges them. A quarter of
the tuning half calibrates quantisation; flips of a quantised variant are never counted there.

With `groups` (which patient, video or user a sample comes from) no group is ever split: what is
judged is then of groups that chose nothing. Groups of one sample each are the same as none.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
MOST_CALIBRATION = 512  # samples; more hardly move the ranges of activations
CALIBRATE, TUNE, EVALUATE = 0, 1, 2  # what three() gives

Flags = NDArray[np.bool_]
Labels = NDArray[np.bool_ | np.uint8]
Groups = NDArray[np.int64]
Parts = NDArray[np.int8]


def half(labels: Labels, groups: Groups | None = None) -> Flags:
    """The tuning half: random, stratified by label. labels (n,) bool or 0 and 1 -> (n,) bool."""
    labels, groups = _checked(labels, groups)
    if groups is not None:
        return _spread(labels, groups, 2, SEED) == 0
    packed = _half(np.packbits(labels).tobytes(), len(labels))
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=len(labels)).view(bool)


@lru_cache(maxsize=4)  # all variants of a case ask for the same
def _half(packed: bytes, n: int) -> bytes:
    """half() of labels without groups; both as bits."""
    labels = np.unpackbits(np.frombuffer(packed, np.uint8), count=n).view(bool)
    random = np.random.default_rng(SEED)
    chosen = np.zeros(n, bool)
    for kind in (True, False):
        rows = random.permutation(np.flatnonzero(labels == kind))
        chosen[rows[: (len(rows) + 1) // 2]] = True
    return np.packbits(chosen).tobytes()


def three(labels: Labels, groups: Groups | None = None) -> Parts:
    """CALIBRATE, TUNE or EVALUATE for each sample: two halves of the tuning half, and the held-out half.

    The calibration rows lie inside CALIBRATE, so nothing in TUNE or EVALUATE calibrated a variant.
    labels (n,) bool or 0 and 1 -> (n,) int8.
    """
    labels, groups = _checked(labels, groups)
    tuning = half(labels, groups)
    part = np.where(tuning, TUNE, EVALUATE).astype(np.int8)
    if groups is not None:
        rows = np.flatnonzero(tuning)
        part[rows] = _spread(labels[rows], groups[rows], 2, SEED)
        return part
    for rows in _permuted(labels, tuning):
        part[rows[: (len(rows) + 1) // 2]] = CALIBRATE
    return part


def calibration_rows(labels: Labels, groups: Groups | None = None) -> NDArray[np.int64]:
    """The samples that calibrate quantisation, sorted: of the tuning half, stratified by label.

    A quarter of that half, at most MOST_CALIBRATION, at least one of each label that is there. With
    groups they are drawn from the CALIBRATE of three(); without, its permutation begins with them.
    labels (n,) bool or 0 and 1.
    """
    labels, groups = _checked(labels, groups)
    tuning = half(labels, groups)
    pool = tuning if groups is None else three(labels, groups) == CALIBRATE
    share = min(0.25, MOST_CALIBRATION / max(1, int(tuning.sum())))
    rows = [
        permuted[: max(1, int(int((tuning & (labels == kind)).sum()) * share))]
        for kind, permuted in zip((True, False), _permuted(labels, pool), strict=True)
    ]
    return np.sort(np.concatenate(rows))


def folds(
    labels: Labels, groups: Groups | None = None, count: int = 5, seed: int = SEED
) -> NDArray[np.int8]:
    """The fold of each sample, 0 to count - 1: random, stratified by label, every fold with both.

    labels (n,) bool or 0 and 1 -> (n,) int8. Raises ValueError where fewer than `count` samples, or
    groups, have a label.
    """
    if not 2 <= count <= 127:
        raise ValueError(f"{count} folds were asked for; they can be 2 to 127")
    labels, groups = _checked(labels, groups)
    for kind, name in ((True, "positive"), (False, "negative")):
        of_kind = labels == kind
        found = int(of_kind.sum()) if groups is None else len(np.unique(groups[of_kind]))
        if found < count:
            units = f"{name} samples" if groups is None else f"groups with a {name} sample"
            raise ValueError(f"there are {found} {units}, and {count} folds need one each")
    if groups is not None:
        return _spread(labels, groups, count, seed)
    random = np.random.default_rng(seed)
    fold = np.empty(len(labels), np.int8)
    begin = 0  # where one label ends the next goes on: the folds are of one size, too
    for kind in (True, False):
        rows = random.permutation(np.flatnonzero(labels == kind))
        fold[rows] = (np.arange(begin, begin + len(rows)) % count).astype(np.int8)
        begin += len(rows)
    return fold


def _checked(labels: Labels, groups: Groups | None) -> tuple[Flags, Groups | None]:
    """Labels as bool; no groups where each is of one sample."""
    flags: Flags = np.asarray(labels, bool)
    if groups is None:
        return flags, None
    if len(groups) != len(flags):
        raise ValueError(f"{len(groups)} groups of samples, {len(flags)} labels")
    return flags, None if len(np.unique(groups)) == len(groups) else np.asarray(groups)


def _permuted(labels: Flags, pool: Flags) -> list[NDArray[np.int64]]:
    """The rows of `pool` in random order, those of the positive label and those of the other."""
    random = np.random.default_rng(SEED)
    kinds = [np.flatnonzero(pool & (labels == kind)) for kind in (True, False)]
    return [random.permutation(rows) if len(rows) else rows for rows in kinds]


def _spread(labels: Flags, groups: Groups, count: int, seed: int) -> Parts:
    """Whole groups over `count` parts, each with its share of both labels, as nearly as groups allow.

    Shuffled, then the largest first, each to the part that has the least of its labels. A label
    reaches as many parts as it has groups, from part 0 on: where that fails, such groups go first.
    """
    code = np.unique(groups, return_inverse=True)[1]
    held = np.stack([np.bincount(code, labels == kind) for kind in (True, False)], axis=1)
    weights = held / np.maximum(1, held.sum(axis=0))
    order = np.random.default_rng(seed).permutation(len(held))
    order = order[np.argsort(-weights.sum(axis=1)[order], kind="stable")]
    reach = np.minimum(count, (held > 0).sum(axis=0))
    part = _greedy(held, order, count, {})
    for kind in (0, 1):
        if not set(range(reach[kind])) <= set(part[held[:, kind] > 0].tolist()):
            part = _greedy(held, order, count, _seeds(held[order] > 0, order, count))
            break
    return part[code]


def _greedy(held: NDArray[Any], order: NDArray[Any], count: int, placed: dict[int, int]) -> Parts:
    """The part of each group; held (groups, 2) samples of each label; `placed` stay where they are."""
    part = np.zeros(len(held), np.int8)
    scale = [1 / max(1.0, float(total)) ** 2 for total in held.sum(axis=0)]
    have = [[0.0, 0.0] for _ in range(count)]
    for group, chosen in placed.items():
        have[chosen][0] += held[group, 0]
        have[chosen][1] += held[group, 1]
        part[group] = chosen
    for group, (positive, negative) in zip(order.tolist(), held[order].tolist(), strict=True):
        if group in placed:
            continue
        a, b = positive * scale[0], negative * scale[1]  # the least squared share, part by part
        cost = [(a * one[0] + b * one[1], one[0] + one[1]) for one in have]
        chosen = cost.index(min(cost))
        have[chosen][0] += positive
        have[chosen][1] += negative
        part[group] = chosen
    return part


def _seeds(has: Flags, order: NDArray[Any], count: int) -> dict[int, int]:
    """One group of each label for each part, while there are: first those that hold both."""
    both = order[has.all(axis=1)].tolist()[:count]
    single = [order[has[:, kind] & ~has[:, 1 - kind]].tolist() for kind in (0, 1)]
    placed = {group: place for place, group in enumerate(both)}
    for groups in single:
        placed |= {group: len(both) + i for i, group in enumerate(groups[: count - len(both)])}
    return placed
