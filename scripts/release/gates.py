"""The gates of a release, and the decision they come to: pure functions of the facts.

A gate has one of four states: passed; failed; insufficient (nothing speaks against the variant, and
the data is too little to say so); not measured. Only the first is passed. A variant with a failed
gate is never recommended; one whose gates are insufficient or not measured may be, and then it is
not released: `make gate` says what is missing.
"""

from fractions import Fraction
from math import ceil
from typing import Any

from scripts.case.rules import Rules
from scripts.variants import BY_NAME

PASSED, FAILED, INSUFFICIENT, UNMEASURED = "passed", "failed", "insufficient", "not measured"
LEAST_SUPPORT = 30  # predicted positives: 0.9^28 = 0.052, so at fewer no precision is told from 0.9
HARM = 0.05  # significance of a harm to accuracy
EXITS = {0: "released", 2: "only the fallback passes", 3: "nothing passes",
         4: "the evidence is insufficient"}  # fmt: skip

Gate = dict[str, Any]


def gates(
    row: dict[str, Any], held_in: str, precision: Fraction, rules: Rules,
    noise: frozenset[int] = frozenset(),
) -> list[Gate]:  # fmt: skip
    """The conditions for production, in order (METHODS G0 to G6).

    `noise`: the samples whose verdict the reference itself changes from run to run, or with the
    batch: no variant is held to those.
    """
    return [
        identity(row, held_in),
        finite(row),
        *range_gate(row),
        parity(row, rules),
        quality(row, precision, rules),
        served(row, noise),
        stability(row, noise),
        *budgets(row, rules),
    ]


def gate(
    place: str, name: str, state: str, found: str, value: float | None = None,
    bound: float | None = None, missing: int | None = None,
) -> Gate:  # fmt: skip
    """One gate: `value` is held against `bound`; `missing`: the samples that are lacking."""
    return {
        "place": place,
        "gate": name,
        "passed": state == PASSED,
        "state": state,
        "found": found,
        "value": value,
        "bound": bound,
        "missing": missing,
    }


def _state(good: bool) -> str:
    return PASSED if good else FAILED


def identity(row: dict[str, Any], held_in: str) -> Gate:
    """G0: the file computes in what it is called."""
    proof = row["precision_proof"] or {"share": 0.0, "share_of": "weight bytes", "counted": 0}
    low = held_in if held_in != "float32" else "float16"
    share = proof["share"] if held_in != "float32" else proof.get("share_float16", 0.0)
    proven = proof["counted"] > 0 and (share > 0 if held_in != "float32" else share == 0)
    found = f"{share:.0%} of the {proof['share_of']} are {low}, called {held_in}"
    return gate("G0", "proven precision", _state(proven), found, share)


def finite(row: dict[str, Any]) -> Gate:
    """G1: every logit is a number."""
    bad = row["nonfinite"]
    found = f"{bad} of {row['samples']} logits are NaN or infinite"
    return gate("G1", "finite", _state(bad == 0), found, bad, 0)


def range_gate(row: dict[str, Any]) -> list[Gate]:
    """G1: nothing overflows float16; none for a variant in which nothing is float16."""
    found = row["range"]
    if found is None:
        return []
    beyond, near = found["beyond"], found["beyond_half"]
    words = f"{len(beyond)} tensors overflow float16 on the test set"
    words += f", the first {beyond[0]}" if beyond else ""
    words += f"; {len(near)} pass half of its range" if near and not beyond else ""
    return [gate("G1", "range", _state(not beyond), words, len(beyond), 0)]


def parity(row: dict[str, Any], rules: Rules) -> Gate:
    """G2: the upper bound of the flip rate, over all conditions, on samples that chose nothing."""
    claim = row["claim"]
    if not claim["samples"]:
        why = claim.get("refused", "no sample is left that chose nothing of it")
        return gate("G2", "parity", INSUFFICIENT, f"nothing can be claimed: {why}")
    flips, samples = claim["bounded"]["flips"], claim["bounded"]["samples"]
    upper, bound = claim["flip_rate_upper"], rules.flip_rate
    words = (
        f"{flips} of {samples} {_units(claim)} flip under any condition; at most {100 * upper:.3g}% of new "
        f"ones ({100 * rules.confidence:g}% confidence), allowed {100 * bound:g}%"
    )
    if flips and rules.zero_flips:
        return gate("G2", "parity", FAILED, words + ", and zero_flips is asked for", upper, bound)
    if flips and upper > bound:
        return gate("G2", "parity", FAILED, words, upper, bound)
    if claim["one_verdict"]:
        return gate("G2", "parity", INSUFFICIENT,
                    "nothing was tested: the reference gives one verdict only", None, bound)  # fmt: skip
    if upper <= bound:
        return gate("G2", "parity", PASSED, words, upper, bound)
    missing = claim["samples_wanted"] - samples
    words += f": {missing} more {_units(claim)} without a flip would show it"
    return gate("G2", "parity", INSUFFICIENT, words, upper, bound, missing)


def _units(claim: dict[str, Any]) -> str:
    if "groups" not in claim:
        return "samples"
    return "groups and unlabelled samples" if "traffic" in claim else "groups"


def quality(row: dict[str, Any], precision: Fraction, rules: Rules) -> Gate:
    """G3: the precision against the labels, as deployed and bounded; no harm to the accuracy."""
    moved = row["retuned_threshold"] is not None
    labels = (row["retuning"] if moved else row)["vs_labels"]
    k, tp = labels["tp"] + labels["fp"], labels["tp"]
    good = k > 0 and tp * precision.denominator >= k * precision.numerator
    words = f"precision against the labels {share(tp, k)}{' with the re-tuned threshold' if moved else ''}, "
    words += f"wanted {float(precision):g}"
    claim = row["claim"]
    if not good:
        return gate("G3", "quality", FAILED, words, tp / k if k else None, float(precision))
    lower = claim["precision"]["lower"] if claim["samples"] else None
    least = max(0.0, float(precision) - rules.precision_slack)
    harm = claim["mcnemar"]["p_harm"] if claim["samples"] else 1.0
    harmed = f"; harm to the accuracy p = {harm:.2g}"
    if harm < HARM:
        return gate("G3", "quality", FAILED, words + harmed, lower, least)
    if k < LEAST_SUPPORT:
        words += f": too few positive verdicts to tell it, {LEAST_SUPPORT} are needed"
        missing = ceil((LEAST_SUPPORT - k) * row["samples"] / k)  # as often positive as until now
        return gate("G3", "quality", INSUFFICIENT, words, lower, least, missing)
    if lower is None:
        words += ": no positive verdict is left on a sample that chose nothing of it"
        return gate("G3", "quality", INSUFFICIENT, words, None, least)
    words += f"; on new data at least {lower:.3f}, allowed {least:.3f}{harmed}"
    return gate("G3", "quality", PASSED if lower >= least else INSUFFICIENT, words, lower, least)


def share(part: int, whole: int) -> str:
    """A ratio with its counts."""
    return f"{part / whole:.4f} ({part} of {whole})" if whole else "undefined (no positive verdict)"


def served(row: dict[str, Any], noise: frozenset[int]) -> Gate:
    """G4: Triton gives the same verdicts, under every condition and under load."""
    if row["served"] is None:
        found = "Triton was not asked (SERVED=no)"
        return gate("G4", "served parity", UNMEASURED, found)
    differ = set(row["served"]["samples"])
    own = f", {len(differ & noise)} of them in the reference too" if differ & noise else ""
    found = f"{len(differ)} verdicts differ in Triton from those in process{own}"
    return gate("G4", "served parity", _state(differ <= noise), found, len(differ), 0)


def stability(row: dict[str, Any], noise: frozenset[int]) -> Gate:
    """G5: loaded again, in other slots and batches, every verdict stays."""
    depends = set(row["repeats"]["samples"])
    own = f", {len(depends & noise)} of them in the reference too" if depends & noise else ""
    found = f"{len(depends)} verdicts depend on the batch, the slot or the run{own}"
    return gate("G5", "batch and slot", _state(depends <= noise), found, len(depends), 0)


def budgets(row: dict[str, Any], rules: Rules) -> list[Gate]:
    """G6: latency and memory within what case.toml allows; none where it sets no budget."""
    found = []
    for name, budget, value, unit, lacking in (
        ("latency", rules.latency_p99_ms, p99_upper(row), "ms", "its upper confidence bound of p99"),
        ("memory", rules.memory_mb, memory(row), "MB", "its memory in Triton"),
    ):  # fmt: skip
        if budget is None:
            continue
        if value is None:
            found.append(gate("G6", name, UNMEASURED, f"{lacking} was not measured", None, budget))
            continue
        told = (
            "p99 with one request in flight is at most" if name == "latency" else "peak memory is"
        )
        shown = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
        words = f"{told} {shown} {unit}, allowed {budget:g}"
        found.append(gate("G6", name, _state(value <= budget), words, value, budget))
    return found


def p99_upper(row: dict[str, Any]) -> float | None:
    """The upper 95 % bound of p99 with one request in flight in Triton, in ms; None: not measured."""
    if row["served"] is None:
        return None
    value: float | None = row["served"]["load"]["levels"][0].get("latency_p99_upper_ms")
    return value


def memory(row: dict[str, Any]) -> float | None:
    """Peak memory of the server with this model, the GPU's where there is one, in MB."""
    if row["served"] is None:
        return None
    load = row["served"]["load"]
    value: float | None = load.get("gpu_memory_mb") or load.get("memory_mb")
    return value


def states(row: dict[str, Any]) -> set[str]:
    """The states of a row's gates."""
    return {one["state"] for one in row["gates"]}


def decide(variants: dict[str, dict[str, Any]], recommended: str | None) -> dict[str, Any]:
    """What `make gate` says: `exit`, one line of `words`, the fallback, what is missing.

    0: the recommended variant passes every gate; 2: only the fallback does; 3: nothing does; 4: no
    gate speaks against a variant, but some were not measured or the data is too little.
    """
    rows = {name: row for name, row in variants.items() if row.get("gates")}
    passing = [name for name, row in rows.items() if states(row) == {PASSED}]
    open_ = [name for name, row in rows.items() if FAILED not in states(row)]
    missing = None
    fallback = next((name for name in rows if BY_NAME[name].fallback), None)
    if recommended in passing:
        others = [name for name in rows if name != fallback]
        code = 2 if passing == [fallback] and others else 0
        words = f"{recommended} passes every gate"
        words += ", and no other variant does" if code == 2 else ""
    elif open_:
        code = 4
        first = recommended or open_[0]
        lacking = [one for one in rows[first]["gates"] if not one["passed"]]
        missing = max((one["missing"] or 0 for one in lacking), default=0) or None
        words = f"{first}: " + "; ".join(f"{one['gate']}: {one['found']}" for one in lacking)
    else:
        code = 3
        words = "every converted variant fails a gate" if rows else "no variant could be measured"
    return {
        "exit": code,
        "verdict": EXITS[code],
        "words": words,
        "fallback": fallback,
        "fallback_passes": fallback in passing,
        "samples_missing": missing,
    }
