"""The gates, each in every state it can have, and what they come to, on rows written by hand."""

from fractions import Fraction

import pytest

from scripts.case.rules import Rules
from scripts.release import gates as module
from scripts.release.gates import FAILED, INSUFFICIENT, PASSED, UNMEASURED, decide, gates
from scripts.verdicts.bounds import flip_bound, harm, precision_bound, samples_needed

NINE_TENTHS = Fraction(9, 10)
ALPHA = 0.05


def claim(flips=0, samples=3000, tp=95, k=100, worse=0, better=0, rate=1e-3, **more):
    """What claims() gives of one variant, from its counts."""
    return {
        "samples": samples,
        "flips": flips,
        "one_verdict": False,
        "bounded": {"flips": flips, "samples": samples},
        "flip_rate_upper": flip_bound(flips, samples, ALPHA),
        "samples_wanted": samples_needed(rate, ALPHA, flips),
        "precision": {"lower": precision_bound(tp, k, ALPHA) if k else None},
        "mcnemar": {"p_harm": harm(worse, better)},
    } | more


def served(samples=(), **load):
    """What Triton gave: one level, and the verdicts that differed."""
    level = {"latency_p99_upper_ms": load.pop("p99", None)}
    return {"samples": list(samples), "load": {"levels": [level], **load}}


def proof(share, counted=400, **more):
    return {"share": share, "share_float16": share, "share_of": "weight bytes",
            "counted": counted} | more  # fmt: skip


def row(**more):
    """A variant that passes every gate."""
    return {
        "samples": 3000,
        "nonfinite": 0,
        "repeats": {"samples": []},
        "served": served(),
        "range": None,
        "retuning": None,
        "retuned_threshold": None,
        "vs_labels": {"tp": 95, "fp": 5},
        "precision_proof": proof(0.0),
        "claim": claim(),
    } | more


def judged(made, name, held_in="float32", noise=(), **rules):
    """(state, sentence) of the one gate of that name."""
    one = the_gate(made, name, held_in, noise, **rules)
    assert one["passed"] == (one["state"] == PASSED)
    return one["state"], one["found"]


def the_gate(made, name, held_in="float32", noise=(), **rules):
    found = gates(made, held_in, NINE_TENTHS, Rules(**rules), frozenset(noise))
    (one,) = [gate for gate in found if gate["gate"] == name]
    return one


def test_all_gates_in_order_and_passed():
    budgets = Rules(latency_p99_ms=5.0, memory_mb=900.0)
    made = row(
        range={"beyond": [], "beyond_half": []}, served=served(p99=2.0, memory_mb=512.0)
    )  # fmt: skip
    found = gates(made, "float32", NINE_TENTHS, budgets)
    assert [(one["place"], one["gate"]) for one in found] == [
        ("G0", "proven precision"),
        ("G1", "finite"),
        ("G1", "range"),
        ("G2", "parity"),
        ("G3", "quality"),
        ("G4", "served parity"),
        ("G5", "batch and slot"),
        ("G6", "latency"),
        ("G6", "memory"),
    ]
    assert {one["state"] for one in found} == {PASSED}
    assert all(one["passed"] for one in found)


def test_without_a_budget_and_without_float16_there_is_no_such_gate():
    names = [one["gate"] for one in gates(row(), "float32", NINE_TENTHS, Rules())]
    assert names == [
        "proven precision", "finite", "parity", "quality", "served parity", "batch and slot",
    ]  # fmt: skip


# ---- identity, numbers, range -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held_in", "share", "counted", "good"),
    [
        ("float32", 0.0, 400, True),
        ("float32", 0.01, 400, False),
        ("float16", 1.0, 400, True),
        ("float16", 0.5, 400, True),
        ("float16", 0.0, 400, False),
        ("int8", 0.9, 400, True),
        ("int8", 0.0, 400, False),
        ("bfloat16", 0.0, 400, False),
        ("float32", 0.0, 0, False),
        ("float16", 1.0, 0, False),
    ],
)
def test_the_precision_must_be_proven(held_in, share, counted, good):
    state, _ = judged(row(precision_proof=proof(share, counted)), "proven precision", held_in)
    assert state == (PASSED if good else FAILED)


def test_a_float32_variant_is_held_to_its_share_of_float16():
    """Its `share` is that of float32 itself."""
    made = row(precision_proof=proof(1.0, share_float16=0.0))
    assert judged(made, "proven precision") == (
        PASSED,
        "0% of the weight bytes are float16, called float32",
    )
    made = row(precision_proof=proof(0.97))
    assert judged(made, "proven precision", "int8") == (
        PASSED,
        "97% of the weight bytes are int8, called int8",
    )


def test_without_a_proof_nothing_is_proven():
    for held_in in ("float32", "float16", "int8"):
        assert judged(row(precision_proof=None), "proven precision", held_in)[0] == FAILED


def test_one_logit_that_is_not_finite_fails():
    assert judged(row(nonfinite=1), "finite") == (
        FAILED,
        "1 of 3000 logits are NaN or infinite",
    )


def test_an_overflow_fails_and_half_of_the_range_is_only_said():
    made = row(range={"beyond": ["a", "b"], "beyond_half": ["a", "b", "c"]})
    assert judged(made, "range") == (
        FAILED,
        "2 tensors overflow float16 on the test set, the first a",
    )
    made = row(range={"beyond": [], "beyond_half": ["c"]})
    assert judged(made, "range") == (
        PASSED,
        "0 tensors overflow float16 on the test set; 1 pass half of its range",
    )


# ---- parity -------------------------------------------------------------------------------------


def test_parity_with_no_flip_and_enough_samples():
    assert judged(row(claim=claim(samples=2995)), "parity") == (
        PASSED,
        "0 of 2995 samples flip under any condition; at most 0.1% of new ones (95% confidence), "
        "allowed 0.1%",
    )


@pytest.mark.parametrize(("samples", "missing"), [(2994, 1), (2000, 995), (899, 2096), (1, 2994)])
def test_parity_with_no_flip_and_too_few_samples_says_how_many_are_missing(samples, missing):
    one = the_gate(row(claim=claim(samples=samples)), "parity")
    assert (one["state"], one["missing"]) == (INSUFFICIENT, missing)
    assert one["found"].startswith(f"0 of {samples} samples flip under any condition; at most ")
    assert one["found"].endswith(
        f", allowed 0.1%: {missing} more samples without a flip would show it"
    )
    enough = claim(samples=samples + missing)
    assert judged(row(claim=enough), "parity")[0] == PASSED
    assert judged(row(claim=claim(samples=samples + missing - 1)), "parity")[0] == INSUFFICIENT


def test_parity_with_flips_on_plenty_of_samples_is_passed():
    one = the_gate(row(claim=claim(flips=2, samples=10_000)), "parity")
    assert one["state"] == PASSED
    assert one["value"] == flip_bound(2, 10_000, ALPHA) < one["bound"] == 1e-3
    assert one["found"] == (
        "2 of 10000 samples flip under any condition; at most 0.0629% of new ones (95% confidence), "
        "allowed 0.1%"
    )


def test_parity_with_flips_and_a_bound_above_what_is_allowed_fails():
    one = the_gate(row(claim=claim(flips=1, samples=3000)), "parity")
    assert (one["state"], one["missing"]) == (FAILED, None)
    assert one["found"] == (
        "1 of 3000 samples flip under any condition; at most 0.158% of new ones (95% confidence), "
        "allowed 0.1%"
    )
    assert judged(row(claim=claim(flips=1, samples=4742)), "parity")[0] == PASSED
    assert judged(row(claim=claim(flips=1, samples=4741)), "parity")[0] == FAILED


def test_zero_flips_takes_none_however_many_samples():
    state, found = judged(row(claim=claim(flips=1, samples=10**6)), "parity", zero_flips=True)
    assert state == FAILED
    assert found.endswith("allowed 0.1%, and zero_flips is asked for")
    assert judged(row(claim=claim(samples=3000)), "parity", zero_flips=True)[0] == PASSED
    assert judged(row(claim=claim(samples=100)), "parity", zero_flips=True)[0] == INSUFFICIENT


def test_parity_of_one_verdict_only_tests_nothing():
    for samples in (100, 10**6):
        one = the_gate(row(claim=claim(samples=samples, one_verdict=True)), "parity")
        assert (one["state"], one["passed"]) == (INSUFFICIENT, False)
        assert one["found"] == "nothing was tested: the reference gives one verdict only"
        assert one["missing"] is None


def test_flips_speak_against_a_variant_also_where_the_reference_gives_one_verdict():
    assert judged(row(claim=claim(flips=9, one_verdict=True)), "parity")[0] == FAILED


@pytest.mark.parametrize("rate", [1e-3, 0.5])
def test_parity_with_no_sample_left(rate):
    """Or with claims refused: conclude gives the same row."""
    one = the_gate(row(claim={"samples": 0}), "parity", flip_rate=rate)
    assert (one["state"], one["passed"]) == (INSUFFICIENT, False)
    assert one["found"] == "nothing can be claimed: no sample is left that chose nothing of it"


def test_parity_counts_groups():
    units = claim(groups={"count": 500, "flipped": 0})
    units |= claim(samples=500) | {"samples": 3000}
    one = the_gate(row(claim=units), "parity")
    assert one["state"] == INSUFFICIENT
    assert one["found"].startswith("0 of 500 groups flip under any condition; at most 0.597% of")
    assert one["found"].endswith(": 2495 more groups without a flip would show it")


def test_parity_counts_groups_and_traffic():
    units = claim(flips=3, samples=1500, groups={"count": 500}, traffic={"samples": 1000})
    assert judged(row(claim=units), "parity")[1].startswith(
        "3 of 1500 groups and unlabelled samples flip under any condition; at most "
    )
    units = claim(samples=1500, groups={"count": 500}, traffic={"samples": 1000})
    assert judged(row(claim=units), "parity")[1].endswith(
        ": 1495 more groups and unlabelled samples without a flip would show it"
    )
    units = claim(samples=1500, traffic={"samples": 1000})
    assert judged(row(claim=units), "parity")[1].startswith("0 of 1500 samples flip")


def test_the_case_says_rate_and_confidence():
    made = row(claim=claim(samples=400, rate=0.01))
    assert judged(made, "parity", flip_rate=0.01)[0] == PASSED
    assert judged(made, "parity", flip_rate=0.001)[0] == INSUFFICIENT
    for confidence, told in ((0.999, "(99.9% confidence)"), (0.99, "(99% confidence)")):
        assert told in judged(made, "parity", confidence=confidence)[1]


# ---- quality ------------------------------------------------------------------------------------


def test_quality_passed():
    assert judged(row(), "quality") == (
        PASSED,
        "precision against the labels 0.9500 (95 of 100), wanted 0.9; on new data at least 0.898, "
        "allowed 0.800; harm to the accuracy p = 1",
    )


@pytest.mark.parametrize(
    ("tp", "fp", "state"),
    [(90, 10, PASSED), (899, 101, FAILED), (89, 11, FAILED), (8, 2, FAILED), (0, 0, FAILED)],
)
def test_quality_is_the_wanted_precision_exactly(tp, fp, state):
    assert judged(row(vs_labels={"tp": tp, "fp": fp}), "quality")[0] == state


def test_quality_says_undefined_where_nothing_is_positive():
    one = the_gate(row(vs_labels={"tp": 0, "fp": 0}), "quality")
    assert (one["state"], one["value"]) == (FAILED, None)
    assert one["found"] == (
        "precision against the labels undefined (no positive verdict), wanted 0.9"
    )


@pytest.mark.parametrize(("k", "state"), [(29, INSUFFICIENT), (30, PASSED)])
def test_quality_needs_thirty_positive_verdicts(k, state):
    one = the_gate(row(vs_labels={"tp": k, "fp": 0}, claim=claim(tp=k, k=k)), "quality")
    assert one["state"] == state
    if state == INSUFFICIENT:
        assert one["found"] == (
            "precision against the labels 1.0000 (29 of 29), wanted 0.9: too few positive verdicts "
            "to tell it, 30 are needed"
        )


@pytest.mark.parametrize(("k", "samples", "missing"), [(29, 2900, 100), (10, 100, 200), (7, 100, 329)])  # fmt: skip
def test_the_missing_samples_of_quality_are_samples(k, samples, missing):
    """As many as give the positive verdicts that lack, at their rate until now."""
    made = row(vs_labels={"tp": k, "fp": 0}, claim=claim(tp=k, k=k), samples=samples)
    assert the_gate(made, "quality")["missing"] == missing


def test_quality_below_the_slack_is_insufficient():
    """27 of 30: at least 0.761."""
    made = row(vs_labels={"tp": 27, "fp": 3}, claim=claim(tp=27, k=30))
    one = the_gate(made, "quality")
    assert (one["state"], one["bound"]) == (INSUFFICIENT, 0.8)
    assert "on new data at least 0.761, allowed 0.800" in one["found"]
    assert judged(made, "quality", precision_slack=0.2)[0] == PASSED
    assert "allowed 0.000" in judged(made, "quality", precision_slack=1.0)[1]


@pytest.mark.parametrize(
    ("worse", "better", "state"),
    [(4, 0, PASSED), (5, 0, FAILED), (0, 5, PASSED), (12, 8, PASSED), (15, 5, FAILED)],
)
def test_quality_with_harm_to_the_accuracy_fails(worse, better, state):
    """0.5^4 = 0.0625, 0.5^5 = 0.031."""
    found = judged(row(claim=claim(worse=worse, better=better)), "quality")
    assert found[0] == state
    assert f"harm to the accuracy p = {harm(worse, better):.2g}" in found[1]


def test_harm_fails_also_with_few_positive_verdicts():
    made = row(vs_labels={"tp": 20, "fp": 0}, claim=claim(worse=9, tp=20, k=20))
    state, found = judged(made, "quality")
    assert state == FAILED
    assert found.endswith("wanted 0.9; harm to the accuracy p = 0.002")


@pytest.mark.parametrize("left", [{"samples": 0}, claim(tp=0, k=0)])
def test_quality_with_nothing_left_to_bound_it(left):
    one = the_gate(row(claim=left), "quality")
    assert (one["state"], one["value"], one["missing"]) == (INSUFFICIENT, None, None)
    assert one["found"] == (
        "precision against the labels 0.9500 (95 of 100), wanted 0.9: no positive verdict is left "
        "on a sample that chose nothing of it"
    )


def test_quality_with_a_moved_threshold_is_that_of_the_moved_threshold():
    moved = row(retuned_threshold=0.0, retuning={"vs_labels": {"tp": 80, "fp": 20}})
    assert judged(moved, "quality") == (
        FAILED,
        "precision against the labels 0.8000 (80 of 100) with the re-tuned threshold, wanted 0.9",
    )
    moved["vs_labels"], moved["retuning"] = {"tp": 1, "fp": 9}, {"vs_labels": {"tp": 95, "fp": 5}}
    assert judged(moved, "quality")[0] == PASSED
    moved["retuned_threshold"] = None
    assert judged(moved, "quality")[0] == FAILED


# ---- served, repeated, budgets ------------------------------------------------------------------


def test_what_triton_was_not_asked_is_not_measured():
    one = the_gate(row(served=None), "served parity")
    assert (one["state"], one["passed"]) == (UNMEASURED, False)
    assert one["found"] == "Triton was not asked (SERVED=no)"


def test_a_verdict_that_differs_in_triton():
    assert judged(row(), "served parity") == (
        PASSED,
        "0 verdicts differ in Triton from those in process",
    )
    made = row(served=served([7, 8]))
    assert judged(made, "served parity") == (
        FAILED,
        "2 verdicts differ in Triton from those in process",
    )
    assert judged(made, "served parity", noise={7, 9}) == (
        FAILED,
        "2 verdicts differ in Triton from those in process, 1 of them in the reference too",
    )
    assert judged(made, "served parity", noise={7, 8, 9})[0] == PASSED


def test_a_verdict_that_depends_on_the_batch():
    made = row(repeats={"samples": [4]})
    assert judged(made, "batch and slot") == (
        FAILED,
        "1 verdicts depend on the batch, the slot or the run",
    )
    assert judged(made, "batch and slot", noise={4}) == (
        PASSED,
        "1 verdicts depend on the batch, the slot or the run, 1 of them in the reference too",
    )
    assert judged(made, "batch and slot", noise={5})[0] == FAILED


def test_the_latency_budget():
    words = "p99 with one request in flight is at most 2.5 ms, allowed "
    made = row(served=served(p99=2.5))
    assert judged(made, "latency", latency_p99_ms=2.5) == (PASSED, words + "2.5")
    assert judged(made, "latency", latency_p99_ms=2.4) == (FAILED, words + "2.4")
    for unmeasured in (row(), row(served=None)):  # too few requests for a bound, or none
        assert judged(unmeasured, "latency", latency_p99_ms=2.5) == (
            UNMEASURED,
            "its upper confidence bound of p99 was not measured",
        )


def test_the_memory_budget():
    made = row(served=served(memory_mb=2048.4))
    assert judged(made, "memory", memory_mb=4000.0) == (
        PASSED,
        "peak memory is 2048 MB, allowed 4000",
    )
    assert judged(made, "memory", memory_mb=2000.0)[0] == FAILED
    for unmeasured in (row(), row(served=None), row(served=served(memory_mb=None))):
        assert judged(unmeasured, "memory", memory_mb=1.0) == (
            UNMEASURED,
            "its memory in Triton was not measured",
        )


def test_the_memory_of_the_gpu_counts_where_there_is_one():
    made = row(served=served(memory_mb=100.0, gpu_memory_mb=900.0))
    assert judged(made, "memory", memory_mb=500.0)[0] == FAILED
    made = row(served=served(memory_mb=100.0, gpu_memory_mb=None))
    assert judged(made, "memory", memory_mb=500.0)[0] == PASSED


# ---- the decision -------------------------------------------------------------------------------


def decided(*states, missing=None):
    """A row whose gates have these states."""
    return {"gates": [module.gate("G9", f"gate {i}", state, f"words {i}", missing=missing)
                      for i, state in enumerate(states)]}  # fmt: skip


REFERENCE = {"measured": True}


def test_exit_0_the_recommended_variant_passes():
    rows = {"torch_fp32": REFERENCE, "onnx_fp32": decided(PASSED), "onnx_fp16": decided(PASSED)}
    assert decide(rows, "onnx_fp16") == {
        "exit": 0,
        "verdict": "released",
        "words": "onnx_fp16 passes every gate",
        "fallback": "onnx_fp32",
        "fallback_passes": True,
        "samples_missing": None,
    }
    rows["onnx_fp32"] = decided(FAILED)
    found = decide(rows, "onnx_fp16")
    assert (found["exit"], found["fallback_passes"]) == (0, False)


def test_exit_0_the_fallback_is_recommended_beside_another_that_passes():
    rows = {"onnx_fp32": decided(PASSED), "onnx_fp16": decided(PASSED)}
    assert decide(rows, "onnx_fp32")["exit"] == 0


def test_exit_0_the_fallback_is_all_there_is():
    assert decide({"torch_fp32": REFERENCE, "onnx_fp32": decided(PASSED)}, "onnx_fp32")["exit"] == 0


@pytest.mark.parametrize("other", [FAILED, INSUFFICIENT, UNMEASURED])
def test_exit_2_only_the_fallback_passes(other):
    found = decide({"onnx_fp32": decided(PASSED), "onnx_fp16": decided(PASSED, other)}, "onnx_fp32")
    assert (found["exit"], found["verdict"]) == (2, "only the fallback passes")
    assert found["words"] == "onnx_fp32 passes every gate, and no other variant does"
    assert found["fallback_passes"] is True


def test_exit_3_every_variant_fails_a_gate():
    rows = {"onnx_fp32": decided(FAILED, PASSED), "onnx_fp16": decided(UNMEASURED, FAILED)}
    found = decide(rows, None)
    assert (found["exit"], found["verdict"]) == (3, "nothing passes")
    assert found["words"] == "every converted variant fails a gate"
    assert found["fallback_passes"] is False


def test_exit_3_nothing_was_measured():
    found = decide({"torch_fp32": REFERENCE}, None)
    assert (found["exit"], found["fallback"]) == (3, None)
    assert found["words"] == "no variant could be measured"


@pytest.mark.parametrize("state", [INSUFFICIENT, UNMEASURED])
def test_exit_4_what_is_open_is_not_released(state):
    rows = {"onnx_fp32": decided(FAILED), "onnx_fp16": decided(PASSED, state, state, missing=9)}
    found = decide(rows, "onnx_fp16")
    assert (found["exit"], found["verdict"]) == (4, "the evidence is insufficient")
    assert found["words"] == "onnx_fp16: gate 1: words 1; gate 2: words 2"
    assert found["samples_missing"] == 9


def test_exit_4_the_largest_number_of_missing_samples_counts():
    rows = {"onnx_fp16": {"gates": decided(INSUFFICIENT, missing=9)["gates"]
                          + decided(INSUFFICIENT, missing=2096)["gates"]
                          + decided(PASSED, missing=5000)["gates"]}}  # fmt: skip
    assert decide(rows, "onnx_fp16")["samples_missing"] == 2096
    assert decide({"onnx_fp16": decided(UNMEASURED)}, "onnx_fp16")["samples_missing"] is None


def test_the_missing_samples_of_a_real_row_are_those_of_its_parity():
    made = row(claim=claim(samples=899), served=None)
    made["gates"] = gates(made, "float32", NINE_TENTHS, Rules())
    found = decide({"onnx_fp32": made}, "onnx_fp32")
    assert (found["exit"], found["samples_missing"]) == (4, 2096)
    assert found["words"].startswith("onnx_fp32: parity: 0 of 899 samples flip")
    assert found["words"].endswith("; served parity: Triton was not asked (SERVED=no)")
