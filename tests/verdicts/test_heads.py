"""Every head against a second implementation in exact decimals, and against hand-worked values."""

from decimal import Decimal, localcontext
from math import inf, log, nan

import numpy as np
import pytest

from scripts.verdicts.heads import log_odds, saturated

LN2 = 0.6931471805599453


def slow(row: list[float], head: str, positive_class: int) -> float:
    """One sample, from the definitions: log of P(positive) over P(all others)."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**9, -(10**9)
        z = [Decimal(float(value)) for value in row]
        if head == "logit":
            yes, no = (z[0].exp(), Decimal(1)) if positive_class else (Decimal(1), z[0].exp())
        elif head == "probability":
            if len(z) == 1:
                z = [1 - z[0] if z[0] != 1 else Decimal(2) ** -25, z[0]]
            yes = z[positive_class]
            no = sum((p for i, p in enumerate(z) if i != positive_class), Decimal(0))
            yes, no = (max(p, Decimal(2) ** -150) for p in (yes, no))
        else:
            yes = z[positive_class].exp()
            no = sum((x.exp() for i, x in enumerate(z) if i != positive_class), Decimal(0))
        return float(yes.ln() - no.ln())


HEADS = [
    ("logit", 0, 1), ("logit", 1, 1), ("two_logits", 0, 2), ("two_logits", 1, 2),
    ("multiclass", 0, 2), ("multiclass", 1, 2), ("multiclass", 0, 5), ("multiclass", 4, 5),
    ("probability", 0, 1), ("probability", 1, 1), ("probability", 1, 2), ("probability", 3, 4),
]  # fmt: skip


@pytest.mark.parametrize(("head", "positive_class", "columns"), HEADS)
@pytest.mark.parametrize("scale", [1e-3, 1, 30, 1000])
def test_every_head_agrees_with_the_slow_one(
    head: str, positive_class: int, columns: int, scale: float
) -> None:
    raw = np.random.default_rng(3).normal(0, scale, (20, columns))
    if head == "probability" and columns == 1:
        raw = 1 / (1 + np.exp(-np.clip(raw, -80, 80)))
    elif head == "probability":
        raw = np.exp(raw - raw.max(axis=1, keepdims=True))
        raw /= raw.sum(axis=1, keepdims=True)
    raw = raw.astype(np.float32)
    wanted = [slow(row, head, positive_class) for row in raw.tolist()]
    found = log_odds(raw, head, positive_class)
    assert (found.dtype, found.shape) == (np.float64, (20,))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("row", "head", "positive_class", "wanted"),
    [
        ([2.5], "logit", 1, 2.5),
        ([2.5], "logit", 0, -2.5),
        ([0.5, 2], "two_logits", 1, 1.5),
        ([0.5, 2], "two_logits", 0, -1.5),
        ([0, 0, 0], "multiclass", 2, -LN2),
        ([log(1), log(2), log(5)], "multiclass", 2, log(5 / 3)),
        ([log(1), log(2), log(5)], "multiclass", 0, log(1 / 7)),
        ([0.75], "probability", 1, log(3)),
        ([0.75], "probability", 0, -log(3)),
        ([0.125, 0.25, 0.625], "probability", 2, log(5 / 3)),
        ([0.5], "probability", 1, 0),
    ],
)
def test_values_worked_out_by_hand(
    row: list[float], head: str, positive_class: int, wanted: float
) -> None:
    assert log_odds(np.array([row]), head, positive_class)[0] == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize(
    ("row", "positive_class", "wanted"),
    [
        ([0.0], 1, -150 * LN2),
        ([1.0], 1, 25 * LN2),
        ([0.0], 0, 150 * LN2),
        ([1.0], 0, -25 * LN2),
        ([0.0, 1.0], 1, 150 * LN2),
        ([1.0, 0.0], 1, -150 * LN2),
        ([0.0, 0.0, 1.0], 2, 150 * LN2),
        ([0.5, 0.5, 0.0], 2, -150 * LN2),
    ],
)
def test_a_probability_of_exactly_0_or_1_has_a_finite_place(
    row: list[float], positive_class: int, wanted: float
) -> None:
    found = log_odds(np.array([row], np.float32), "probability", positive_class)[0]
    assert found == pytest.approx(wanted, abs=1e-9)
    assert found == pytest.approx(slow(row, "probability", positive_class), abs=1e-9)


def test_0_and_1_lie_beyond_all_other_probabilities() -> None:
    one, zero = np.float32(1), np.float32(0)
    p = [zero, np.nextafter(zero, one), np.float32(0.5), np.nextafter(one, zero), one]
    for positive_class, order in ((1, 1), (0, -1)):
        found = log_odds(np.array(p), "probability", positive_class) * order
        assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("head", ["two_logits", "multiclass"])
@pytest.mark.parametrize("big", [1e4, 1e30, 3.4e38])
def test_very_large_logits_do_not_overflow(head: str, big: float) -> None:
    raw = np.array([[big, -big], [-big, big], [big, big]], np.float32)
    exact = float(np.float32(big))
    assert log_odds(raw, head, 1).tolist() == [-2 * exact, 2 * exact, 0]


def test_very_large_logits_of_many_classes_do_not_overflow() -> None:
    raw = np.array([[1e4, 1e4, 1e4], [1e4, 0, -1e4], [-1e4, 0, 1e4]], np.float32)
    np.testing.assert_allclose(log_odds(raw, "multiclass", 2), [-LN2, -2e4, 1e4], rtol=1e-15)


def test_an_offset_common_to_all_classes_changes_nothing() -> None:
    raw = np.array([[1.0, 2, 3], [-4, 0, 4]])
    found = log_odds(raw + 1024, "multiclass", 1)
    np.testing.assert_allclose(found, log_odds(raw, "multiclass", 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("head", "positive_class", "columns"), HEADS)
def test_nan_stays_nan_in_its_own_sample(head: str, positive_class: int, columns: int) -> None:
    raw = np.full((3, columns), 1 / columns)
    raw[1, -1] = nan
    found = log_odds(raw, head, positive_class)
    assert np.isnan(found).tolist() == [False, True, False]


@pytest.mark.parametrize(("head", "positive_class"), [("logit", 1), ("two_logits", 0)])
def test_infinity_stays_infinity(head: str, positive_class: int) -> None:
    raw = np.array([[inf, 0], [-inf, 0]])[:, : 1 if head == "logit" else 2]
    assert log_odds(raw, head, positive_class).tolist() == [inf, -inf]


@pytest.mark.parametrize("head", ["logit", "probability"])
@pytest.mark.parametrize("positive_class", [0, 1])
def test_a_flat_output_is_the_same_as_a_column(head: str, positive_class: int) -> None:
    flat = np.array([0.25, 0.5, 0.75], np.float32)
    np.testing.assert_array_equal(
        log_odds(flat, head, positive_class), log_odds(flat[:, None], head, positive_class)
    )


@pytest.mark.parametrize(
    ("head", "shape"),
    [("logit", (0,)), ("logit", (0, 1)), ("two_logits", (0, 2)), ("probability", (0, 1))],
)
def test_no_samples_give_no_logits(head: str, shape: tuple[int, ...]) -> None:
    assert log_odds(np.zeros(shape), head, 1).shape == (0,)


@pytest.mark.parametrize(
    ("shape", "head", "positive_class", "needs"),
    [
        ((), "logit", 1, "(n,) or (n, 1)"),
        ((3, 2), "logit", 1, "(n,) or (n, 1)"),
        ((3, 1, 1), "logit", 1, "(n,) or (n, 1)"),
        ((3,), "two_logits", 1, "(n, 2)"),
        ((3, 1), "two_logits", 1, "(n, 2)"),
        ((3, 3), "two_logits", 1, "(n, 2)"),
        ((3, 2, 1), "two_logits", 1, "(n, 2)"),
        ((3,), "multiclass", 1, "(n, k) with k > 1"),
        ((3, 4), "multiclass", 4, "(n, k) with k > 4"),
        ((3, 4, 2), "multiclass", 1, "(n, k) with k > 1"),
        ((), "probability", 1, "(n, k)"),
        ((3, 4, 2), "probability", 1, "(n, k)"),
        ((3, 2), "probability", 2, "k > 2"),
        ((3, 1), "probability", 2, "k > 2"),
        ((3,), "probability", 2, "k > 2"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_both(
    shape: tuple[int, ...], head: str, positive_class: int, needs: str
) -> None:
    with pytest.raises(ValueError) as caught:
        log_odds(np.zeros(shape), head, positive_class)
    for word in (f"shape {shape}", f"head {head!r}", needs):
        assert word in str(caught.value)


def test_one_class_alone_is_no_multiclass() -> None:
    with pytest.raises(ValueError) as caught:
        log_odds(np.zeros((3, 1)), "multiclass", 0)
    assert "k > 0" not in str(caught.value), "k is 1: the sentence contradicts itself"


@pytest.mark.parametrize("value", [-0.25, 1.5, -1e-7, inf, -inf])
@pytest.mark.parametrize("columns", [1, 3])
def test_a_number_that_is_no_probability_is_quoted(value: float, columns: int) -> None:
    raw = np.full((4, columns), 0.25)
    raw[2, 0] = value
    with pytest.raises(ValueError) as caught:
        log_odds(raw, "probability", 1 if columns == 1 else 2)
    assert f"holds {value!r}" in str(caught.value)


def test_the_raw_output_is_left_as_it_is() -> None:
    raw = np.array([[0.0, 1.0], [0.25, 0.75]])
    before = raw.copy()
    log_odds(raw, "probability", 1)
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize(
    ("raw", "head", "count"),
    [
        ([0.0, 0.5, 1.0, 1.0], "probability", 3),
        ([[0.0], [0.5], [nan]], "probability", 1),
        ([[0.0, 1.0], [0.5, 0.5], [0.25, 0.75]], "probability", 1),
        ([[0.0, 0.5, 0.5]], "probability", 1),
        ([0.5, 0.25], "probability", 0),
        ([0.0, 1.0], "logit", 0),
        ([[0.0, 1.0]], "two_logits", 0),
    ],
)
def test_saturated_counts_samples_at_exactly_0_or_1(raw: object, head: str, count: int) -> None:
    assert saturated(np.array(raw), head) == count
