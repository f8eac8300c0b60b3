"""The gates, and the choice among the variants that pass them: pure functions of the facts."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

TIE = 0.05  # a difference of the median below this is no reason to prefer one
SERVED_TIE = 0.1  # of figures from two servers that ran one after the other
STUDENT_T = 2.093  # two-sided 95 % with 19 degrees of freedom: 20 blocks of rounds


def gates(
    row: dict[str, Any], held_in: str, precision: Fraction, noise: frozenset[int] = frozenset()
) -> list[dict[str, Any]]:
    """The conditions for production, in order: each with `passed` and what was found.

    `noise`: the samples whose verdict the reference itself changes from run to run, or with the
    batch: no variant is held to those.
    """
    retuning, moved = row["retuning"], row["retuned_threshold"] is not None
    flips = retuning["flips_after"] if moved else row["flips"]["total"]
    own = 0 if moved else sum(one["index"] in noise for one in row["flips"]["samples"])
    depends = set(row["repeats"]["samples"])
    labels = (retuning if moved else row)["vs_labels"]
    proof = row["precision_proof"] or {"share": 0.0, "share_of": "weight bytes", "counted": 0}
    low = held_in if held_in != "float32" else "float16"
    share = proof["share"] if held_in != "float32" else proof.get("share_float16", 0.0)
    proven = proof["counted"] > 0 and (share > 0 if held_in != "float32" else share == 0)
    k, tp = labels["tp"] + labels["fp"], labels["tp"]
    quality = k > 0 and tp * precision.denominator >= k * precision.numerator
    at = " with the re-tuned threshold" if moved else ""
    aside = row["calibration"]
    apart = f" ({aside['samples']} more samples calibrated it)" if aside else ""
    return [
        {
            "gate": "finite",
            "passed": row["nonfinite"] == 0,
            "found": f"{row['nonfinite']} of {row['samples']} logits are NaN or infinite",
        },
        {
            "gate": "proven precision",
            "passed": proven,
            "found": f"{share:.0%} of the {proof['share_of']} are {low}, called {held_in}",
        },
        *range_gate(row),
        {
            "gate": "parity",
            "passed": flips == own,
            "found": f"{flips} of {row['samples']} verdicts differ from the reference's{at}{apart}"
            + (f", {own} of them where the reference differs from itself" if own else ""),
        },
        {
            "gate": "batch and slot",
            "passed": depends <= noise,
            "found": f"{len(depends)} of {row['samples']} verdicts depend on the batch, the slot or "
            "the run"
            + (f", {len(depends & noise)} of them in the reference too" if depends & noise else ""),
        },
        *served_gate(row, noise),
        {
            "gate": "quality",
            "passed": quality,
            "found": f"precision against the labels {_share(tp, k)}{at}, wanted {float(precision):g}",
        },
    ]


def range_gate(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The gate on float16's range; none for a variant in which nothing is float16."""
    found = row["range"]
    if found is None:
        return []
    beyond, near = found["beyond"], found["beyond_half"]
    return [
        {
            "gate": "range",
            "passed": not beyond,
            "found": f"{len(beyond)} tensors overflow float16 on the test set"
            + (f", the first {beyond[0]}" if beyond else "")
            + (f"; {len(near)} pass half of its range" if near and not beyond else ""),
        }
    ]


def served_gate(row: dict[str, Any], noise: frozenset[int]) -> list[dict[str, Any]]:
    """The gate on what Triton answered, under load too; none where it was not asked."""
    served = row["served"]
    if served is None:
        return []
    differ, total = set(served["samples"]), row["samples"]
    own = f", {len(differ & noise)} of them in the reference too" if differ & noise else ""
    return [
        {
            "gate": "served parity",
            "passed": differ <= noise,
            "found": f"{len(differ)} of {total} verdicts differ in Triton from those in process{own}",
        }
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f} ({part} of {whole})" if whole else "undefined (no positive verdict)"


def choose(variants: dict[str, dict[str, Any]], threshold: float) -> dict[str, Any]:
    """`variant` (None: none passes), `threshold`, `reasons`, and `not_chosen`: name -> one reason.

    Survivors of the gates are ranked by the median latency: in Triton with one request in flight
    where they were served, then by the throughput there, then in process at batch 1 and at the largest
    batch. Those within the noise of the fastest are tied, and settled by the next of these, then by
    an unchanged threshold, then by the smaller file.
    """
    reasons: dict[str, str] = {}
    survivors = []
    for name, row in variants.items():
        if not row["measured"]:
            reasons[name] = row["reason"]
        elif "gates" not in row:
            reasons[name] = "the reference itself, not a model that Triton serves here"
        else:
            failed = [gate for gate in row["gates"] if not gate["passed"]]
            if failed:
                reasons[name] = f"fails the gate {failed[0]['gate']}: {failed[0]['found']}"
            else:
                survivors.append(name)
    if not survivors:
        tried = any("gates" in row for row in variants.values())
        why_none = "passes every gate" if tried else "was measured"
        return {
            "variant": None,
            "threshold": None,
            "reasons": [f"no converted variant {why_none}; keep serving the PyTorch model"],
            "not_chosen": reasons,
        }
    winner, settled, lost = _rank(variants, survivors)
    reasons |= lost
    row = variants[winner]
    moved = row["retuned_threshold"]
    why = [
        f"{_gate(row, 'parity')['found']}; all gates are passed",
        f"median latency {_latency_words(variants, survivors, winner)}{settled}",
        f"the threshold {'moves to' if moved is not None else 'stays at'} "
        f"{threshold if moved is None else moved:.6g}",
    ]
    return {
        "variant": winner,
        "threshold": threshold if moved is None else moved,
        "reasons": why,
        "not_chosen": reasons,
    }


def _gate(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(gate for gate in row["gates"] if gate["gate"] == name)


class Criterion(NamedTuple):
    """One figure to rank by; lower is better."""

    value: Callable[[dict[str, Any]], float]
    ratio: Callable[
        [dict[str, Any], dict[str, Any]], tuple[float, float, float]
    ]  # with an interval
    lost: str  # of a loser, with {ratio}, {inverse}, {interval} and {fastest}
    decides: str  # what settled it


def criteria(variants: dict[str, dict[str, Any]], names: list[str]) -> list[Criterion]:
    """What `names` are ranked by, in order: served figures where all have them, then in process.

    All of one report were taken with one server, so native and Python-based backends never mix.
    """
    found = []
    if all(variants[name]["served"] for name in names):
        found = [
            Criterion(
                served_p50, _served_ratio(served_p50),
                "slower in Triton: {ratio:.2f} times the p50 of {fastest} with one request in flight",
                "the p50 with one request in flight",
            ),
            Criterion(
                seconds_per_request, _served_ratio(seconds_per_request),
                "less throughput in Triton: {inverse:.0%} of the requests per second of {fastest}",
                "the throughput in Triton",
            ),
        ]  # fmt: skip
    for size in sorted((int(size) for size in variants[names[0]]["latency"]), key=int):
        found.append(
            Criterion(
                lambda row, size=size: _typical(row, size),  # type: ignore[misc]
                lambda row, other, size=size: latency_ratio(row, other, size),  # type: ignore[misc]
                f"slower at batch {size}: {{ratio:.2f}} times the median of {{fastest}} "
                "(95 % interval {interval})",
                f"the median at batch {size}",
            )
        )
    return found


def under_load(served: dict[str, Any]) -> dict[str, Any]:
    """The levels in Triton: perf_analyzer's where it ran, which is for all of a report or for none."""
    found: dict[str, Any] = served.get("perf") or served["load"]
    return found


def served_p50(row: dict[str, Any]) -> float:
    """Milliseconds in Triton with one request in flight."""
    return float(under_load(row["served"])["levels"][0]["latency_p50_ms"])


def seconds_per_request(row: dict[str, Any]) -> float:
    """The inverse of the best throughput in Triton."""
    return 1 / float(under_load(row["served"])["best"]["throughput_per_s"])


def _served_ratio(
    value: Callable[[dict[str, Any]], float],
) -> Callable[[dict[str, Any], dict[str, Any]], tuple[float, float, float]]:
    """Of two servers that ran one after the other: less than SERVED_TIE apart is no difference."""

    def ratio(row: dict[str, Any], other: dict[str, Any]) -> tuple[float, float, float]:
        found = value(row) / value(other)
        return found, found / (1 + SERVED_TIE), found * (1 + SERVED_TIE)

    return ratio


def _latency_words(variants: dict[str, dict[str, Any]], names: list[str], winner: str) -> str:
    row = variants[winner]
    if all(variants[name]["served"] for name in names):
        return f"in Triton with one request in flight is {served_p50(row):.3g} ms"
    return f"at batch 1 is {row['latency']['1']['latency_p50_ms']:.3g} ms"


def _rank(variants: dict[str, dict[str, Any]], names: list[str]) -> tuple[str, str, dict[str, str]]:
    """(the winner, how it was settled as the end of a sentence, name -> reason of each loser)."""
    lost: dict[str, str] = {}
    settled = ""
    left = list(names)
    for place, one in enumerate(criteria(variants, names)):
        fastest = min(left, key=lambda name: one.value(variants[name]))
        for name in [name for name in left if name != fastest]:
            ratio, low, high = one.ratio(variants[name], variants[fastest])
            if not is_tie(ratio, low, high):
                left.remove(name)
                lost[name] = one.lost.format(
                    ratio=ratio, inverse=1 / ratio, fastest=fastest,
                    interval=f"{low:.2f} to {high:.2f}",
                )  # fmt: skip
        if len(left) == 1:
            if place == 0:
                settled = ", the lowest of those that pass" if len(names) > 1 else ""
            else:
                settled = f", a tie within the noise; {one.decides} settles it"
            break
    left.sort(key=lambda name: _preference(variants[name]))
    for name in left[1:]:
        kept = variants[name]["retuned_threshold"] is None
        if not kept and variants[left[0]]["retuned_threshold"] is None:
            lost[name] = f"as fast as {left[0]} within the noise, but its threshold had to move"
        else:
            lost[name] = (
                f"as fast as {left[0]} within the noise, and its file is no smaller "
                f"({_bytes(variants[name])} and {_bytes(variants[left[0]])} bytes)"
            )
    if len(left) > 1:
        settled = ", a tie within the noise, settled by the threshold and the size of the file"
    return left[0], settled, lost


def latency_ratio(
    row: dict[str, Any], other: dict[str, Any], size: int
) -> tuple[float, float, float]:
    """Median latency of `row` over that of `other`, with a 95 % interval.

    A t-interval on the logarithm of the ratio in each block of interleaved rounds.
    """
    blocks = zip(
        row["latency"][str(size)]["block_p50_ms"],
        other["latency"][str(size)]["block_p50_ms"],
        strict=True,
    )
    logs = [math.log(a / b) for a, b in blocks]
    mean = math.fsum(logs) / len(logs)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    half = STUDENT_T * spread / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def is_tie(ratio: float, low: float, high: float) -> bool:
    """Whether the interval holds 1, or the difference is too small to matter."""
    return low <= 1 <= high or abs(ratio - 1) < TIE


def _typical(row: dict[str, Any], size: int) -> float:
    """Geometric mean of the medians of the blocks, by whose ratio two variants are compared."""
    blocks = row["latency"][str(size)]["block_p50_ms"]
    return math.exp(math.fsum(math.log(ms) for ms in blocks) / len(blocks))


def _bytes(row: dict[str, Any]) -> int:
    value: int = row["precision_proof"]["file_bytes"]
    return value


def _preference(row: dict[str, Any]) -> tuple[bool, int]:
    return row["retuned_threshold"] is not None, _bytes(row)
