"""The gates, and the choice among the variants that pass them: pure functions of the facts."""

import math
from fractions import Fraction
from typing import Any

TIE = 0.05  # a difference of the median below this is no reason to prefer one
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
    proof = row["precision_proof"] or {
        "share_float16": 0.0,
        "share_of": "weight bytes",
        "counted": 0,
    }
    share = proof["share_float16"]
    proven = proof["counted"] > 0 and (share > 0 if held_in == "float16" else share == 0)
    k, tp = labels["tp"] + labels["fp"], labels["tp"]
    quality = k > 0 and tp * precision.denominator >= k * precision.numerator
    at = " with the re-tuned threshold" if moved else ""
    return [
        {
            "gate": "finite",
            "passed": row["nonfinite"] == 0,
            "found": f"{row['nonfinite']} of {row['samples']} logits are NaN or infinite",
        },
        {
            "gate": "proven precision",
            "passed": proven,
            "found": f"{share:.0%} of the {proof['share_of']} are float16, called {held_in}",
        },
        {
            "gate": "parity",
            "passed": flips == own,
            "found": f"{flips} of {row['samples']} verdicts differ from the reference's{at}"
            + (f", {own} of them where the reference differs from itself" if own else ""),
        },
        {
            "gate": "batch and slot",
            "passed": depends <= noise,
            "found": f"{len(depends)} of {row['samples']} verdicts depend on the batch, the slot or "
            "the run"
            + (f", {len(depends & noise)} of them in the reference too" if depends & noise else ""),
        },
        {
            "gate": "quality",
            "passed": quality,
            "found": f"precision against the labels {_share(tp, k)}{at}, wanted {float(precision):g}",
        },
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f} ({part} of {whole})" if whole else "undefined (no positive verdict)"


def choose(variants: dict[str, dict[str, Any]], threshold: float) -> dict[str, Any]:
    """`variant` (None: none passes), `threshold`, `reasons`, and `not_chosen`: name -> one reason.

    Survivors of the gates are ranked by the median latency at batch 1. Those within the noise of
    the fastest are tied, and settled by the largest batch, then by an unchanged threshold, then by
    the smaller file.
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
    p50 = row["latency"]["1"]["latency_p50_ms"]
    why = [
        f"{row['gates'][2]['found']}; all gates are passed",
        f"median latency at batch 1 is {p50:.3g} ms{settled}",
        f"the threshold {'moves to' if moved is not None else 'stays at'} "
        f"{threshold if moved is None else moved:.6g}",
    ]
    return {
        "variant": winner,
        "threshold": threshold if moved is None else moved,
        "reasons": why,
        "not_chosen": reasons,
    }


def _rank(variants: dict[str, dict[str, Any]], names: list[str]) -> tuple[str, str, dict[str, str]]:
    """(the winner, how it was settled as the end of a sentence, name -> reason of each loser)."""
    lost: dict[str, str] = {}
    settled = ""
    sizes = sorted((int(size) for size in variants[names[0]]["latency"]), key=int)
    left = list(names)
    for size in sizes:
        fastest = min(left, key=lambda name: _typical(variants[name], size))
        for name in [name for name in left if name != fastest]:
            ratio, low, high = latency_ratio(variants[name], variants[fastest], size)
            if not is_tie(ratio, low, high):
                left.remove(name)
                lost[name] = (
                    f"slower at batch {size}: {ratio:.2f} times the median of {fastest} "
                    f"(95 % interval {low:.2f} to {high:.2f})"
                )
        if len(left) == 1:
            if size == sizes[0]:
                settled = ", the lowest of those that pass" if len(names) > 1 else ""
            else:
                settled = f", a tie within the noise; at batch {size} it is the fastest"
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
