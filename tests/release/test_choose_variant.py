"""The choice among variants, on rows written by hand."""

import itertools
import math

import numpy as np
import pytest

from scripts.case.rules import Rules
from scripts.release import choose_variant
from scripts.release.choose_variant import choose, in_process, is_tie, preferences, rank
from scripts.release.gates import FAILED, INSUFFICIENT, PASSED, UNMEASURED, gate
from scripts.variants import BY_NAME

EACH = ("onnx_fp32", "onnx_fp16", "onnx_int8", "torchscript_fp32")
OBJECTIVES = ("latency", "throughput", "memory", "size")


def latency(p50, noise=0.0):
    """Twenty blocks around p50; `noise`: how far they swing, as a share of it."""
    blocks = [p50 * (1 + noise * (-1) ** i) for i in range(20)]
    return {"latency_p50_ms": p50, "block_p50_ms": blocks}


def row(p50=1.0, at_32=10.0, size=1000, noise=0.0, state=PASSED, flips=0, factor=5.0, **more):
    """A variant, with what the choice knows of it."""
    return {
        "measured": True,
        "runtime": "onnxruntime",
        "served": None,
        "retuned_threshold": None,
        "claim": {"samples": 100, "flips": flips, "certificate": {"min_safety_factor": factor}},
        "precision_proof": {"file_bytes": size},
        "latency": {"1": latency(p50, noise), "32": latency(at_32, noise)},
        "gates": [
            gate("G1", "finite", PASSED, "all are numbers"),
            gate("G2", "parity", state, f"{flips} flip"),
            gate("G3", "quality", state, "its quality"),
        ],
    } | more


def served(p50=1.0, throughput=1000.0, **load):
    """What Triton gave: one level."""
    return {"load": {"levels": [{"latency_p50_ms": p50}],
                     "best": {"throughput_per_s": throughput}} | load}  # fmt: skip


REFERENCE = {"measured": True, "latency": {"1": latency(5.0), "32": latency(50.0)}}


def choice(weights=None, **variants):
    """By latency, or by these weights."""
    rules = Rules(weights=weights or {"latency": 1.0})
    return choose({"torch_fp32": REFERENCE, **variants}, 0.25, rules)


# ---- who may be chosen ---------------------------------------------------------------------------


def test_the_fastest_wins():
    found = choice(onnx_fp32=row(p50=2.0), onnx_fp16=row(p50=1.0))
    assert (found["variant"], found["threshold"]) == ("onnx_fp16", 0.25)
    assert found["reasons"] == [
        "0 flip",
        "all gates are passed",
        "median latency at batch 1 is 1 ms, the best of those that may be shipped",
        "the threshold stays at 0.25",
    ]
    assert found["not_chosen"] == {
        "torch_fp32": "the reference itself, not a model that Triton serves here",
        "onnx_fp32": "slower at batch 1: 2.00 times the median of onnx_fp16 "
        "(95 % interval 2.00 to 2.00)",
    }


@pytest.mark.parametrize("other", [PASSED, INSUFFICIENT, UNMEASURED])
def test_a_variant_that_fails_a_gate_is_never_chosen(other):
    found = choice(onnx_fp32=row(p50=2.0, state=other), onnx_fp16=row(p50=0.1, state=FAILED))
    assert found["variant"] == "onnx_fp32"
    assert found["not_chosen"]["onnx_fp16"] == "fails the gate parity: 0 flip"
    assert found["reasons"][2] == "median latency at batch 1 is 2 ms"


@pytest.mark.parametrize("state", [INSUFFICIENT, UNMEASURED])
def test_one_that_passes_is_preferred_to_a_faster_one_that_is_open(state):
    found = choice(onnx_fp32=row(p50=9.0), onnx_fp16=row(p50=0.1, state=state))
    assert found["variant"] == "onnx_fp32"
    assert found["not_chosen"]["onnx_fp16"] == (
        f"is not shown to pass the gate parity ({state}): 0 flip"
    )
    assert found["reasons"][1] == "all gates are passed"


@pytest.mark.parametrize("state", [INSUFFICIENT, UNMEASURED])
def test_where_none_passes_the_best_of_the_open_ones_is_chosen(state):
    found = choice(onnx_fp32=row(p50=9.0, state=state), onnx_fp16=row(p50=1.0, state=state))
    assert found["variant"] == "onnx_fp16"
    assert found["reasons"][1] == "no gate is failed, and open are: parity, quality"
    assert found["not_chosen"]["onnx_fp32"].startswith("slower at batch 1: 9.00 times")


def test_the_figures_of_those_that_may_not_be_chosen_do_not_matter():
    """Neither as the best, nor for what is known of all."""
    rows = {"onnx_fp32": row(p50=1.03, size=9, served=served(memory_mb=5.0)),
            "onnx_fp16": row(p50=1.0, size=10, served=served(memory_mb=5.0)),
            "onnx_int8": row(p50=0.97, state=FAILED)}  # fmt: skip
    found = choice({"memory": 0.5, "size": 0.5}, **rows)
    assert found["variant"] == "onnx_fp32"
    assert "Triton with it takes 5 MB" in found["reasons"][2]


def test_only_the_first_gate_that_fails_is_the_reason():
    bad = row(state=FAILED)
    bad["gates"][0] = gate("G1", "finite", FAILED, "2 of 100 are NaN")
    assert choice(onnx_fp32=row(), onnx_fp16=bad)["not_chosen"]["onnx_fp16"] == (
        "fails the gate finite: 2 of 100 are NaN"
    )


def test_a_failed_gate_is_the_reason_before_an_open_one():
    bad = row(state=FAILED)
    bad["gates"][0] = gate("G1", "finite", UNMEASURED, "not seen")
    reason = choice(onnx_fp32=row(), onnx_fp16=bad)["not_chosen"]["onnx_fp16"]
    assert reason == "fails the gate parity: 0 flip"


def test_what_was_not_measured_keeps_its_reason():
    skipped = {"measured": False, "reason": "needs a GPU"}
    found = choice(onnx_fp32=row(), trt_fp16=skipped)
    assert found["not_chosen"]["trt_fp16"] == "needs a GPU"


def test_every_one_fails():
    found = choice(onnx_fp32=row(state=FAILED), onnx_fp16=row(state=FAILED))
    assert (found["variant"], found["threshold"], found["sensitivity"]) == (None, None, [])
    assert found["reasons"] == [
        "no converted variant fails no gate; keep serving the PyTorch model"
    ]
    assert set(found["not_chosen"]) == {"torch_fp32", "onnx_fp32", "onnx_fp16"}


def test_nothing_but_the_reference_was_measured():
    found = choice(onnx_fp32={"measured": False, "reason": 'left out by "skip" in case.toml'})
    assert found["variant"] is None
    assert found["reasons"] == ["no converted variant was measured; keep serving the PyTorch model"]
    assert found["not_chosen"]["onnx_fp32"] == 'left out by "skip" in case.toml'


def test_every_variant_but_the_winner_has_one_reason():
    rows = {
        "onnx_fp32": row(p50=1.0),
        "onnx_fp16": row(p50=1.01),
        "trt_fp32": row(p50=3.0),
        "trt_fp16": row(state=FAILED),
        "onnx_int8": row(state=INSUFFICIENT),
    }
    found = choice(**rows)
    assert set(found["not_chosen"]) == {"torch_fp32", *rows} - {found["variant"]}
    assert all(isinstance(reason, str) and reason for reason in found["not_chosen"].values())


@pytest.mark.parametrize(("threshold", "told"), [(0.75, "0.75"), (0.0, "0")])
def test_a_moved_threshold_comes_with_the_choice(threshold, told):
    found = choice(onnx_fp32=row(retuned_threshold=threshold))
    assert (found["variant"], found["threshold"]) == ("onnx_fp32", threshold)
    assert found["reasons"][3] == f"the threshold moves to {told}"


# ---- what they are ranked by ----------------------------------------------------------------------

CORNERS = {  # each is the best by one objective, by far
    "onnx_fp32": row(size=5000, served=served(p50=1.0, throughput=100.0, memory_mb=700.0)),
    "onnx_fp16": row(size=4000, served=served(p50=4.0, throughput=900.0, memory_mb=600.0)),
    "onnx_int8": row(size=1000, served=served(p50=3.0, throughput=200.0, memory_mb=800.0)),
    "torchscript_fp32": row(size=6000, served=served(p50=2.0, throughput=300.0, memory_mb=90.0)),
}


@pytest.mark.parametrize(
    ("objective", "winner", "told", "loser", "reason"),
    [
        ("latency", "onnx_fp32", "median latency in Triton with one request in flight is 1 ms",
         "onnx_fp16", "slower in Triton: 4.00 times the p50 of onnx_fp32 with one request in flight"),
        ("throughput", "onnx_fp16", "a request takes Triton 0.00111 s on average under load",
         "torchscript_fp32", "less throughput in Triton: 33% of the requests per second of onnx_fp16"),
        ("memory", "torchscript_fp32", "Triton with it takes 90 MB",
         "onnx_int8", "needs 8.89 times the memory of torchscript_fp32"),
        ("size", "onnx_int8", "the file has 1000 bytes",
         "onnx_fp16", "larger: its file is 4.00 times that of onnx_int8"),
    ],
)  # fmt: skip
def test_one_objective_decides_alone(objective, winner, told, loser, reason):
    found = choice({objective: 1.0}, **CORNERS)
    assert found["variant"] == winner
    assert found["reasons"][2] == told + ", the best of those that may be shipped"
    assert found["not_chosen"][loser] == reason


def test_weights_are_of_the_logarithms():
    """By half latency and half size: sqrt(2 * 5) = 3.16 against sqrt(4 * 1) = 2."""
    rows = {"onnx_fp32": row(p50=2.0, size=5000), "onnx_fp16": row(p50=4.0, size=1000)}
    half = {"latency": 0.5, "size": 0.5}
    found = choice(half, **rows)
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"] == (
        f"{math.sqrt(10) / 2:.2f} times the figures of onnx_fp16, weighted latency 0.5, size 0.5"
    )
    assert found["reasons"][2] == (
        "median latency at batch 1 is 4 ms and the file has 1000 bytes, the best of those that may "
        "be shipped"
    )
    assert choice({"latency": 0.9, "size": 0.1}, **rows)["variant"] == "onnx_fp32"


def test_a_figure_that_was_not_measured_is_said_and_does_not_count():
    rows = {"onnx_fp32": row(p50=1.0, size=9000), "onnx_fp16": row(p50=2.0, size=1000)}
    found = choice({"memory": 1.0}, **rows)
    assert found["variant"] == "onnx_fp32", "by latency"
    assert found["reasons"][2].endswith("(memory was not measured and does not count)")
    found = choice({"memory": 0.8, "size": 0.2}, **rows)
    assert found["variant"] == "onnx_fp16", "by size alone"
    assert found["reasons"][2] == (
        "the file has 1000 bytes, the best of those that may be shipped "
        "(memory was not measured and does not count)"
    )
    assert "memory" not in choice({"size": 1.0}, **rows)["reasons"][2]


def test_memory_that_one_lacks_is_compared_for_none():
    rows = {"onnx_fp32": row(size=9000, served=served(memory_mb=10.0)),
            "onnx_fp16": row(size=1000, served=served(memory_mb=None))}  # fmt: skip
    found = choice({"memory": 1.0, "size": 0.0001}, **rows)
    assert found["variant"] == "onnx_fp16"
    assert "memory was not measured" in found["reasons"][2]


def test_batch_sizes_are_compared_as_numbers():
    """As texts, "128" would stand before "32", and "8" after both."""
    rows = {"onnx_fp32": row(), "onnx_fp16": row()}
    for name, at_8 in (("onnx_fp32", 5.0), ("onnx_fp16", 9.0)):
        rows[name]["latency"] = {"16": latency(30 - 2 * at_8), "8": latency(at_8)}
    assert choice(**rows)["variant"] == "onnx_fp32"
    assert choice({"throughput": 1.0}, **rows)["variant"] == "onnx_fp16"


def test_where_perf_analyzer_ran_its_figures_count():
    ours = [served(p50=1.0, throughput=2000.0), served(p50=3.0)]
    theirs = [served(p50=3.0)["load"], served(p50=1.5, throughput=2000.0)["load"]]
    rows = [one | {"perf": perf} for one, perf in zip(ours, theirs, strict=True)]
    found = choice(onnx_fp32=row(served=rows[0]), onnx_fp16=row(served=rows[1]))
    assert found["variant"] == "onnx_fp16"
    assert "2.00 times the p50 of onnx_fp16" in found["not_chosen"]["onnx_fp32"]
    for one in rows:
        one["perf"] = None
    found = choice(onnx_fp32=row(served=rows[0]), onnx_fp16=row(served=rows[1]))
    assert found["variant"] == "onnx_fp32"


def test_served_figures_come_before_those_in_process():
    found = choice(
        onnx_fp32=row(p50=1.0, served=served(p50=3.0)),
        onnx_fp16=row(p50=2.0, served=served(p50=1.5)),
    )
    assert found["variant"] == "onnx_fp16"


def test_where_one_was_not_served_all_are_compared_in_process():
    found = choice(onnx_fp32=row(p50=1.0), onnx_fp16=row(p50=2.0, served=served(p50=0.1)))
    assert found["variant"] == "onnx_fp32"


# ---- ties ---------------------------------------------------------------------------------------


def test_a_large_difference_within_the_noise_is_a_tie():
    slower = row(p50=1.2, size=1)
    slower["latency"]["1"]["block_p50_ms"] = [0.5, 2.5] * 10
    assert choice(onnx_fp32=row(p50=1.0), onnx_fp16=slower)["variant"] == "onnx_fp16"
    slower["latency"]["1"] = latency(1.2)
    assert choice(onnx_fp32=row(p50=1.0), onnx_fp16=slower)["variant"] == "onnx_fp32"


@pytest.mark.parametrize(("p50", "winner"), [(1.04, "onnx_fp16"), (1.06, "onnx_fp32")])
def test_in_process_less_than_5_per_cent_is_a_tie(p50, winner):
    assert choice(onnx_fp32=row(), onnx_fp16=row(p50=p50, size=1))["variant"] == winner


@pytest.mark.parametrize(("p50", "winner"), [(1.09, "onnx_fp16"), (1.11, "onnx_fp32")])
def test_in_triton_less_than_10_per_cent_is_a_tie(p50, winner):
    rows = {"onnx_fp32": row(served=served()), "onnx_fp16": row(size=1, served=served(p50=p50))}
    assert choice(**rows)["variant"] == winner


def better(i):
    """What makes a row the better one by the i-th reason that settles a tie, and only by that."""
    return (
        {},  # its threshold stays: the other's moves
        {"flips": 0},
        {"factor": 9.0},
        {},  # named so that more machines run it
        {"served": served(start_s=1.0)},
        {"size": 500},
    )[i]


def worse(i):
    return (
        {"retuned_threshold": 0.5},
        {"flips": 1},
        {"factor": 4.0},
        {},
        {"served": served(start_s=9.0)},
        {"size": 1000},
    )[i]


WORDS = (
    "its threshold had to move",
    "1 verdicts flip",
    "its smallest safety factor is 4",
    "fewer machines run it",
    "it takes 9 s to start",
    "its file is no smaller (1000 bytes)",
)


@pytest.mark.parametrize("i", range(6))
def test_each_reason_settles_a_tie_before_all_that_follow(i):
    """The loser is better by every later reason; and in both orders of the names."""
    later = range(i + 1, 6)
    good, bad = better(i), worse(i)
    for j in later:
        good, bad = good | worse(j), bad | better(j)
    served_both = {"served": served(start_s=3.0)}
    for one in (good, bad):
        one |= served_both if "served" not in one else {}
    alike = (("onnx_fp32", "onnx_fp16"), ("onnx_fp16", "onnx_fp32"))
    apart = ("onnx_fp32", "torchscript_fp32")  # more machines run the first
    for names in (apart,) if i == 3 else (*alike, *([apart[::-1]] if i < 3 else [])):
        found = choice(**dict(zip(names, (row(**good), row(**bad)), strict=True)))
        assert found["variant"] == names[0]
        assert found["not_chosen"][names[1]] == (
            f"as good as {names[0]} within the noise, but {WORDS[i]}"
        )
        assert found["reasons"][2].endswith(", a tie within the noise that other reasons settle")


def test_flips_of_unlabelled_traffic_settle_a_tie_too():
    rows = {"onnx_fp32": row(), "onnx_fp16": row(size=1)}
    rows["onnx_fp32"]["claim"]["traffic"] = {"samples": 100, "flips": 0}
    rows["onnx_fp16"]["claim"]["traffic"] = {"samples": 100, "flips": 3}
    found = choice(**rows)
    assert found["not_chosen"]["onnx_fp16"].endswith("but 3 verdicts flip")


def test_safety_factors_above_ten_and_starts_that_are_close_are_no_reason():
    rows = {"onnx_fp32": row(factor=10.5, served=served(start_s=1.0)),
            "onnx_fp16": row(factor=80.0, served=served(start_s=1.1), size=900),
            "onnx_int8": row(factor=None, served=served(start_s=1.0), size=800)}  # fmt: skip
    assert choice(**rows)["variant"] == "onnx_int8", "no deviation at all: an infinite factor"


def test_a_safety_factor_of_nothing_is_said_as_such():
    assert preferences("onnx_fp32", row(factor=0.0))[2] == (0.0, "its smallest safety factor is 0")
    assert preferences("onnx_fp32", row(factor=None))[2] == (
        -10.0,
        "its smallest safety factor is inf",
    )


def test_nothing_is_claimed_of_either():
    rows = {"onnx_fp32": row(claim={"samples": 0}), "onnx_fp16": row(claim={"samples": 0}, size=1)}
    assert choice(**rows)["variant"] == "onnx_fp16"


def test_identical_variants_take_the_first_of_the_list_of_variants():
    alike = [name for name in EACH if BY_NAME[name].backend == "onnxruntime"]
    assert len(alike) > 2
    for names in itertools.permutations(alike):
        found = choice(**{name: row() for name in names})
        assert found["variant"] == min(alike, key=list(BY_NAME).index)
        assert found["sensitivity"] == []


def test_the_order_of_the_variants_does_not_matter():
    random = np.random.default_rng(0)
    winners = set()
    for case in range(12):
        close = random.choice([1.0, 1.02, 1.04, 1.08, 2.0], (4, 5))
        weights = dict(zip(OBJECTIVES, random.dirichlet(np.ones(4)).tolist(), strict=True))
        rows = {}
        for name, (a, b, c, d, e) in zip(EACH, close.tolist(), strict=True):
            answer = served(p50=a, throughput=b, memory_mb=c, start_s=d) if case % 2 else None
            rows[name] = row(p50=a, at_32=b, size=int(100 * e), noise=0.02 * (d > 1), served=answer)
        first = choice(weights, **rows)
        winners.add(first["variant"])
        for names in itertools.permutations(EACH):
            assert choice(weights, **{name: rows[name] for name in names}) == first
    assert len(winners) > 1


def test_nobody_loses_as_slower_with_a_ratio_below_one():
    """A median over all rounds and the medians of the blocks may disagree."""
    odd = row(p50=1.02)
    odd["latency"]["1"]["block_p50_ms"] = [0.8 + 0.001 * i for i in range(20)]
    found = choice(onnx_fp32=row(p50=1.0), onnx_fp16=odd)
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"].startswith("slower at batch 1: 1.24 times")


def test_the_ratio_and_its_interval_worked_by_hand():
    assert in_process(row(p50=3.0), row(p50=2.0), 1) == pytest.approx((math.log(1.5), 0))
    noisy = row(p50=1.0)
    noisy["latency"]["1"]["block_p50_ms"] = [2.0, 0.5] * 10
    middle, half = in_process(noisy, row(p50=1.0), 1)
    assert middle == pytest.approx(0)
    # the logarithms are +-ln 2: deviation ln 2 * sqrt(20 / 19), over sqrt(20), times 2.093
    assert half == pytest.approx(math.log(2) * 2.093 / 19**0.5)


@pytest.mark.parametrize(
    ("ratio", "low", "tie"),
    [
        (1.2, 0.9, True),
        (1.2, 1.1, False),
        (1 / 1.2, 0.7, False),
        (1.04, 1.03, True),
        (1.06, 1.05, False),
        (1.0, 1.0, True),
    ],
)
def test_what_is_a_tie(ratio, low, tie):
    assert is_tie(math.log(ratio), math.log(ratio / low)) == tie


# ---- what would have to change --------------------------------------------------------------------


def scanned(rows, weights, objective, winner):
    """The last weight in 1/1000 at which the winner still wins, and who does at the next."""
    held = weights.get(objective, 0.0)
    last = held
    for thousandth in range(math.floor(1000 * held) + 1, 1001):
        share = thousandth / 1000
        mixed = {name: w * (1 - share) / (1 - held) for name, w in weights.items()}
        mixed = {name: w for name, w in (mixed | {objective: share}).items() if w > 0}
        other = rank(rows, list(rows), Rules(weights=mixed))[0]
        if other != winner:
            return last, other
        last = share
    return None


SMALL = {"onnx_fp32": row(p50=1.0, at_32=1.0, size=5000), "onnx_fp16": row(p50=2.0, at_32=2.0)}


def test_the_sensitivity_in_words():
    """ln 2 of latency and throughput against ln 5 of size, w its weight."""
    found = choice({"latency": 1.0}, **SMALL)
    # (1 - w) ln 2 - w ln 5 <= ln 1.05 from w = 0.2798 on: a tie, which the smaller file settles
    assert found["variant"] == "onnx_fp32"
    assert found["sensitivity"] == [
        "onnx_fp32 wins unless size counts more than 27%; then onnx_fp16 does"
    ]
    found = choice({"size": 1.0}, **SMALL)
    # the tie is left at (1 - w) ln 2 - w ln 5 = ln 1.05, as much the other way round
    assert found["variant"] == "onnx_fp16"
    assert found["sensitivity"] == [
        "onnx_fp16 wins unless latency counts more than 72%; then onnx_fp32 does",
        "onnx_fp16 wins unless throughput counts more than 72%; then onnx_fp32 does",
    ]


def test_the_weight_that_is_there_already_counts():
    """The weight told is the objective's in all, not what is added to it."""
    for held in (0.3, 0.6, 0.7155, 0.7201):
        found = choice({"latency": held, "size": 1 - held}, **SMALL)
        assert found["variant"] == "onnx_fp16"
        assert found["sensitivity"][0] == (
            "onnx_fp16 wins unless latency counts more than 72%; then onnx_fp32 does"
        )
    assert choice({"latency": 0.7203, "size": 0.2797}, **SMALL)["variant"] == "onnx_fp32"


def test_the_crossing_weights_agree_with_a_scan():
    random = np.random.default_rng(1)
    told = silent = 0
    for case in range(12):
        figures = np.exp(random.normal(0, 0.5, (3, 4)))
        rows = {
            name: row(
                size=int(1000 * d), served=served(p50=a, throughput=100 / b, memory_mb=100 * c)
            )
            for name, (a, b, c, d) in zip(EACH, figures.tolist(), strict=False)
        }
        weights = dict(zip(OBJECTIVES, random.dirichlet(np.ones(4)).tolist(), strict=True))
        weights = {"latency": 1.0} if case % 4 == 0 else weights
        found = choose(rows, 0.25, Rules(weights=weights))
        sentences = {one.split(" unless ")[1].split()[0]: one for one in found["sensitivity"]}
        for objective in OBJECTIVES:
            wanted = scanned(rows, weights, objective, found["variant"])
            if wanted is None:
                assert objective not in sentences
                silent += 1
                continue
            share, other = wanted
            words = sentences[objective].split()
            percent = float(words[words.index("than") + 1].rstrip("%;"))
            assert sentences[objective].startswith(f"{found['variant']} wins unless ")
            assert percent <= 100 * share + 0.11, "the winner wins there, and not much further"
            assert 100 * share - percent < 1.0
            told += 1
            assert sentences[objective].endswith(f"then {other} does")
    assert told > 10
    assert silent > 5


def test_a_winner_by_everything_has_no_sensitivity():
    rows = {"onnx_fp32": row(p50=1.0, at_32=1.0, size=10), "onnx_fp16": row(p50=9.0)}
    assert choice(**rows)["sensitivity"] == []
    assert choose_variant.sensitivity(rows, ["onnx_fp32"], "onnx_fp32", Rules()) == []
