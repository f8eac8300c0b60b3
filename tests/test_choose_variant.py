"""The gates and the choice, on rows written by hand."""

from fractions import Fraction

import pytest

from scripts.choose_variant import choose, gates, is_tie, latency_ratio

NINE_TENTHS = Fraction(9, 10)


def latency(p50, noise=0.0):
    """Twenty blocks around p50; `noise`: how far they swing, as a share of it."""
    blocks = [p50 * (1 + noise * (-1) ** i) for i in range(20)]
    return {"latency_p50_ms": p50, "block_p50_ms": blocks}


def row(precision="float32", p50=1.0, at_32=10.0, size=1000, noise=0.0, **more):
    """A variant that passes every gate, with what the report knows of it."""
    share = 0.0 if precision == "float32" else 1.0
    made = {
        "measured": True,
        "samples": 100,
        "nonfinite": 0,
        "flips": {"total": 0, "samples": []},
        "repeats": {"samples": []},
        "served": None,
        "range": None,
        "calibration": None,
        "retuning": None,
        "retuned_threshold": None,
        "vs_labels": {"tp": 9, "fp": 1},
        "precision_proof": {
            "share": share,
            "share_float16": share,
            "share_of": "weight bytes",
            "counted": 400,
            "file_bytes": size,
        },
        "latency": {"1": latency(p50, noise), "32": latency(at_32, noise)},
    }
    made |= more
    return made | {"gates": gates(made, precision, NINE_TENTHS)}


def flipped(count):
    """As compare_verdicts lists them: samples 10, 11, ..."""
    return {"total": count, "samples": [{"index": 10 + i} for i in range(count)]}


def reference():
    return {"measured": True, "latency": {"1": latency(5.0), "32": latency(50.0)}}


def choice(**variants):
    return choose({"torch_fp32": reference(), **variants}, 0.25)


def tuned(flips_after):
    """What re-tuning found: as good against the labels as the reference."""
    return {"flips_after": flips_after, "vs_labels": {"tp": 9, "fp": 1}}


def served(p50=1.0, throughput=1000.0, samples=()):
    """What Triton gave: one level, and the verdicts that differed."""
    level = {"latency_p50_ms": p50}
    load = {"levels": [level], "best": {"throughput_per_s": throughput}}
    return {"samples": list(samples), "load": load}


def passed(made):
    return {gate["gate"]: gate["passed"] for gate in made["gates"]}


# ---- gates --------------------------------------------------------------------------------------


def test_all_gates_are_passed_and_in_order():
    assert list(passed(row()).items()) == [
        ("finite", True),
        ("proven precision", True),
        ("parity", True),
        ("batch and slot", True),
        ("quality", True),
    ]


def test_one_logit_that_is_not_finite_fails():
    made = row(nonfinite=1)
    assert not passed(made)["finite"]
    assert made["gates"][0]["found"] == "1 of 100 logits are NaN or infinite"


@pytest.mark.parametrize(
    ("held_in", "share", "size", "good"),
    [
        ("float32", 0.0, 400, True),
        ("float32", 0.01, 400, False),
        ("float16", 1.0, 400, True),
        ("float16", 0.5, 400, True),
        ("float16", 0.0, 400, False),
        ("float32", 0.0, 0, False),
        ("float16", 0.0, 0, False),
    ],
)
def test_the_precision_must_be_proven(held_in, share, size, good):
    proof = {
        "share": share,
        "share_float16": share,
        "share_of": "weight bytes",
        "counted": size,
        "file_bytes": 1,
    }
    assert passed(row(held_in, precision_proof=proof))["proven precision"] == good


def test_without_a_proof_nothing_is_proven():
    made = row()
    made["precision_proof"] = None
    for held_in in ("float32", "float16"):
        assert not gates(made, held_in, NINE_TENTHS)[1]["passed"]


def test_one_flip_fails_parity():
    made = row(flips=flipped(1))
    assert not passed(made)["parity"]
    assert made["gates"][2]["found"] == "1 of 100 verdicts differ from the reference's"


def test_a_flip_where_the_reference_differs_from_itself_is_not_held_against_a_variant():
    made = row(flips=flipped(2))
    for noise, good in (({10, 11}, True), ({10}, False), ({12, 13}, False)):
        found = gates(made, "float32", NINE_TENTHS, frozenset(noise))[2]
        assert found["passed"] == good, noise
    assert gates(made, "float32", NINE_TENTHS, frozenset({10}))[2]["found"] == (
        "2 of 100 verdicts differ from the reference's, 1 of them where the reference differs from "
        "itself"
    )


def test_a_verdict_that_depends_on_the_batch_fails():
    made = row(repeats={"samples": [4]})
    assert not passed(made)["batch and slot"]
    assert made["gates"][3]["found"] == (
        "1 of 100 verdicts depend on the batch, the slot or the run"
    )
    assert gates(made, "float32", NINE_TENTHS, frozenset({4}))[3]["passed"]


@pytest.mark.parametrize(("after", "good"), [(0, True), (2, False)])
def test_with_a_moved_threshold_the_flips_after_it_count(after, good):
    made = row(flips=flipped(7), retuned_threshold=0.5, retuning=tuned(after))
    assert passed(made)["parity"] == good
    assert made["gates"][2]["found"] == (
        f"{after} of 100 verdicts differ from the reference's with the re-tuned threshold"
    )


def test_a_threshold_that_was_not_accepted_leaves_the_flips():
    made = row(flips=flipped(7), retuned_threshold=None, retuning=tuned(0))
    assert not passed(made)["parity"]


@pytest.mark.parametrize(
    ("tp", "fp", "flips", "good"),
    [
        (9, 1, 1, True),
        (899, 101, 1, False),
        (8, 2, 1, False),
        (0, 0, 1, False),
    ],
)
def test_quality_is_the_wanted_precision_exactly(tp, fp, flips, good):
    made = row(vs_labels={"tp": tp, "fp": fp}, flips=flipped(flips))
    assert passed(made)["quality"] == good


def test_quality_says_undefined_where_nothing_is_positive():
    made = row(vs_labels={"tp": 0, "fp": 0}, flips=flipped(1))
    assert made["gates"][4]["found"] == (
        "precision against the labels undefined (no positive verdict), wanted 0.9"
    )


# ---- the choice ---------------------------------------------------------------------------------


def test_the_fastest_that_passes_wins():
    found = choice(onnx_fp32=row(p50=2.0), onnx_fp16=row("float16", p50=1.0))
    assert (found["variant"], found["threshold"]) == ("onnx_fp16", 0.25)
    assert found["reasons"] == [
        "0 of 100 verdicts differ from the reference's; all gates are passed",
        "median latency at batch 1 is 1 ms, the lowest of those that pass",
        "the threshold stays at 0.25",
    ]
    assert found["not_chosen"] == {
        "torch_fp32": "the reference itself, not a model that Triton serves here",
        "onnx_fp32": "slower at batch 1: 2.00 times the median of onnx_fp16 "
        "(95 % interval 2.00 to 2.00)",
    }


def test_a_variant_that_fails_a_gate_does_not_win_by_speed():
    fast = row("float16", p50=0.1, flips=flipped(3))
    found = choice(onnx_fp32=row(p50=2.0), onnx_fp16=fast)
    assert found["variant"] == "onnx_fp32"
    assert found["not_chosen"]["onnx_fp16"] == (
        "fails the gate parity: 3 of 100 verdicts differ from the reference's"
    )
    assert found["reasons"][1] == "median latency at batch 1 is 2 ms"


def test_only_the_first_gate_that_fails_is_the_reason():
    bad = row("float16", nonfinite=2, flips=flipped(2), vs_labels={"tp": 0, "fp": 0})
    assert [gate["passed"] for gate in bad["gates"]] == [False, True, False, True, False]
    reason = choice(onnx_fp32=row(), onnx_fp16=bad)["not_chosen"]["onnx_fp16"]
    assert reason == "fails the gate finite: 2 of 100 logits are NaN or infinite"


def test_what_was_not_measured_keeps_its_reason():
    skipped = {"measured": False, "reason": "needs a GPU"}
    found = choice(onnx_fp32=row(), trt_fp16=skipped)
    assert found["not_chosen"]["trt_fp16"] == "needs a GPU"


def test_nothing_passes():
    found = choice(onnx_fp32=row(nonfinite=1), onnx_fp16=row("float16", flips=flipped(1)))
    assert (found["variant"], found["threshold"]) == (None, None)
    assert found["reasons"] == [
        "no converted variant passes every gate; keep serving the PyTorch model"
    ]
    assert set(found["not_chosen"]) == {"torch_fp32", "onnx_fp32", "onnx_fp16"}


def test_nothing_but_the_reference_was_measured():
    found = choice(onnx_fp32={"measured": False, "reason": 'left out by "skip" in case.toml'})
    assert found["variant"] is None
    assert found["not_chosen"]["onnx_fp32"] == 'left out by "skip" in case.toml'


def test_every_variant_but_the_winner_has_one_reason():
    rows = {
        "onnx_fp32": row(p50=1.0),
        "onnx_fp16": row("float16", p50=1.01),
        "trt_fp32": row(p50=3.0),
        "trt_fp16": row("float16", flips=flipped(1)),
    }
    found = choice(**rows)
    assert set(found["not_chosen"]) == {"torch_fp32", *rows} - {found["variant"]}
    assert all(isinstance(reason, str) and reason for reason in found["not_chosen"].values())


def test_a_moved_threshold_comes_with_the_choice():
    moved = row(flips=flipped(4), retuned_threshold=0.75, retuning=tuned(0))
    found = choice(onnx_fp32=moved)
    assert (found["variant"], found["threshold"]) == ("onnx_fp32", 0.75)
    assert found["reasons"][0].endswith("with the re-tuned threshold; all gates are passed")
    assert found["reasons"][2] == "the threshold moves to 0.75"


def test_a_threshold_moved_to_zero_is_a_moved_threshold():
    moved = row(flips=flipped(4), retuned_threshold=0.0, retuning=tuned(0))
    found = choice(onnx_fp32=moved)
    assert found["threshold"] == 0.0
    assert found["reasons"][2] == "the threshold moves to 0"


# ---- ties ---------------------------------------------------------------------------------------


def test_a_tie_at_batch_one_is_settled_by_the_largest_batch():
    found = choice(
        onnx_fp32=row(p50=1.0, at_32=20.0), onnx_fp16=row("float16", p50=1.02, at_32=10.0)
    )
    assert found["variant"] == "onnx_fp16"
    assert found["reasons"][1] == (
        "median latency at batch 1 is 1.02 ms, a tie within the noise; the median at batch 32 settles it"
    )
    assert found["not_chosen"]["onnx_fp32"] == (
        "slower at batch 32: 2.00 times the median of onnx_fp16 (95 % interval 2.00 to 2.00)"
    )


def test_a_large_difference_within_the_noise_is_a_tie():
    slower = row(p50=1.2, at_32=30.0)
    slower["latency"]["1"]["block_p50_ms"] = [0.5, 2.5] * 10
    found = choice(onnx_fp32=slower, onnx_fp16=row("float16", p50=1.0, at_32=10.0))
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"].startswith("slower at batch 32")


def test_batch_sizes_are_compared_as_numbers():
    """As texts, "128" would stand before "32", and "8" after both."""
    rows = {"onnx_fp32": row(), "onnx_fp16": row("float16")}
    for name, at_8 in (("onnx_fp32", 5.0), ("onnx_fp16", 9.0)):
        rows[name]["latency"] = {"16": latency(30 - 2 * at_8), "8": latency(at_8)}
        rows[name]["latency"]["1"] = latency(1.0)
    assert choice(**rows)["variant"] == "onnx_fp32"


def test_a_full_tie_is_settled_by_an_unmoved_threshold_first():
    moved = row("float16", size=10, flips=flipped(4), retuned_threshold=0.5,
                retuning=tuned(0))  # fmt: skip
    found = choice(onnx_fp32=row(size=1000), onnx_fp16=moved)
    assert found["variant"] == "onnx_fp32"
    assert found["not_chosen"]["onnx_fp16"] == (
        "as fast as onnx_fp32 within the noise, but its threshold had to move"
    )
    assert found["reasons"][1].endswith(
        ", a tie within the noise, settled by the threshold and the size of the file"
    )


def test_a_full_tie_is_settled_by_the_smaller_file():
    found = choice(onnx_fp32=row(size=1000), onnx_fp16=row("float16", size=500))
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"] == (
        "as fast as onnx_fp16 within the noise, and its file is no smaller (1000 and 500 bytes)"
    )


def test_a_tie_in_everything_takes_the_first_of_the_list():
    found = choice(onnx_fp32=row(), onnx_fp16=row("float16"))
    assert found["variant"] == "onnx_fp32"


def test_who_lost_at_batch_one_does_not_come_back_at_the_largest_batch():
    found = choice(onnx_fp32=row(p50=1.0, at_32=30.0), onnx_fp16=row("float16", p50=2.0, at_32=1.0))
    assert found["variant"] == "onnx_fp32"


def test_the_order_of_the_rows_does_not_matter():
    rows = {
        "onnx_fp32": row(p50=1.0, at_32=11.0, size=900),
        "onnx_fp16": row("float16", p50=1.02, at_32=10.9, size=500),
        "trt_fp32": row(p50=1.01, at_32=30.0, size=100),
    }
    first = choice(**rows)
    again = choice(**dict(reversed(rows.items())))
    assert first["variant"] == again["variant"] == "onnx_fp16"
    assert first["not_chosen"] == again["not_chosen"]


def test_nobody_loses_as_slower_with_a_ratio_below_one():
    """A median over all rounds and the medians of the blocks may disagree."""
    odd = row("float16", p50=1.02)
    odd["latency"]["1"]["block_p50_ms"] = [0.8 + 0.001 * i for i in range(20)]
    found = choice(onnx_fp32=row(p50=1.0), onnx_fp16=odd)
    for reason in found["not_chosen"].values():
        assert not reason.startswith("slower at batch 1: 0.")


def test_the_ratio_and_its_interval_worked_by_hand():
    ratio, low, high = latency_ratio(row(p50=3.0), row(p50=2.0), 1)
    assert (ratio, low, high) == pytest.approx((1.5, 1.5, 1.5))
    noisy, calm = row(p50=1.0), row(p50=1.0)
    noisy["latency"]["1"]["block_p50_ms"] = [2.0, 0.5] * 10
    ratio, low, high = latency_ratio(noisy, calm, 1)
    assert ratio == pytest.approx(1.0)
    assert low == pytest.approx(1 / high)
    # the logarithms are +-ln 2: deviation ln 2 * sqrt(20 / 19), over sqrt(20), times 2.093
    assert high == pytest.approx(2 ** (2.093 / 19**0.5))


@pytest.mark.parametrize(
    ("ratio", "low", "high", "tie"),
    [
        (1.2, 0.9, 1.5, True),
        (1.2, 1.1, 1.3, False),
        (1.04, 1.03, 1.05, True),
        (1.06, 1.05, 1.07, False),
        (1.0, 1.0, 1.0, True),
    ],
)
def test_what_is_a_tie(ratio, low, high, tie):
    assert is_tie(ratio, low, high) == tie


# ---- served --------------------------------------------------------------------------------------


def test_a_verdict_that_differs_in_triton_fails_a_gate_of_its_own():
    assert "served parity" not in passed(row()), "what was not asked is no gate"
    assert passed(row(served=served()))["served parity"]
    made = row(served=served(samples=[7, 8]))
    assert not passed(made)["served parity"]
    assert made["gates"][4]["found"] == ("2 of 100 verdicts differ in Triton from those in process")
    noise = frozenset({7, 8, 9})
    assert gates(made, "float32", NINE_TENTHS, noise)[4]["passed"]


def test_served_figures_come_before_those_in_process():
    found = choice(
        onnx_fp32=row(p50=1.0, served=served(p50=3.0)),
        onnx_fp16=row("float16", p50=2.0, served=served(p50=1.5)),
    )
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"] == (
        "slower in Triton: 2.00 times the p50 of onnx_fp16 with one request in flight"
    )
    assert found["reasons"][1] == (
        "median latency in Triton with one request in flight is 1.5 ms, the lowest of those that pass"
    )


def test_where_perf_analyzer_ran_its_figures_count():
    ours = [served(p50=1.0, throughput=2000.0), served(p50=3.0)]
    theirs = [served(p50=3.0)["load"], served(p50=1.5, throughput=2000.0)["load"]]
    rows = [one | {"perf": perf} for one, perf in zip(ours, theirs, strict=True)]
    found = choice(onnx_fp32=row(served=rows[0]), onnx_fp16=row("float16", served=rows[1]))
    assert found["variant"] == "onnx_fp16"
    assert "2.00 times the p50 of onnx_fp16" in found["not_chosen"]["onnx_fp32"]
    assert "in flight is 1.5 ms" in found["reasons"][1]
    for one in rows:
        one["perf"] = None
    found = choice(onnx_fp32=row(served=rows[0]), onnx_fp16=row("float16", served=rows[1]))
    assert found["variant"] == "onnx_fp32"


def test_a_tie_in_latency_is_settled_by_the_throughput_in_triton():
    found = choice(
        onnx_fp32=row(served=served(p50=1.0, throughput=1000.0)),
        onnx_fp16=row("float16", served=served(p50=1.05, throughput=2000.0)),
    )
    assert found["variant"] == "onnx_fp16"
    assert found["not_chosen"]["onnx_fp32"] == (
        "less throughput in Triton: 50% of the requests per second of onnx_fp16"
    )
    assert found["reasons"][1].endswith(
        "a tie within the noise; the throughput in Triton settles it"
    )


def test_a_tie_in_triton_is_settled_in_process():
    found = choice(
        onnx_fp32=row(p50=1.0, served=served()), onnx_fp16=row("float16", p50=2.0, served=served())
    )
    assert found["variant"] == "onnx_fp32"
    assert found["not_chosen"]["onnx_fp16"].startswith("slower at batch 1: 2.00 times the median")


def test_where_one_was_not_served_all_are_compared_in_process():
    found = choice(
        onnx_fp32=row(p50=1.0), onnx_fp16=row("float16", p50=2.0, served=served(p50=0.1))
    )
    assert found["variant"] == "onnx_fp32"
