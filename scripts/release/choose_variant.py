"""The choice among the variants that no gate speaks against: pure functions of the facts."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from scripts.case.rules import OBJECTIVES, Rules
from scripts.release.gates import FAILED, PASSED, memory, states
from scripts.variants import BY_NAME, part

TIE = 0.05  # a difference below this is no reason to prefer one
SERVED_TIE = 0.1  # of figures from two servers that ran one after the other
STUDENT_T = 2.093  # two-sided 95 % with 19 degrees of freedom: 20 blocks of rounds
ENOUGH = 10.0  # safety factor: above, a larger one is no reason to prefer a variant

Row = dict[str, Any]


def choose(variants: dict[str, Row], threshold: float, rules: Rules) -> dict[str, Any]:
    """`variant` (None: none may be), `threshold`, `reasons`, `not_chosen`: name -> one reason,
    `sensitivity`: what would have to change for another to win.

    Of the variants that pass every gate, or where none does of those that fail none, the one with
    the best figures by the case's objective or weights. Those within the noise of the best are
    tied; in this order an unchanged threshold settles it, fewer flips and a larger safety factor,
    more machines that can run it, a quicker start, the smaller file, the place in variants.VARIANTS.
    """
    reasons: dict[str, str] = {}
    candidates = []
    passing = any(states(row) == {PASSED} for row in variants.values() if row.get("gates"))
    for name, row in variants.items():
        if not row["measured"]:
            reasons[name] = row["reason"]
        elif "gates" not in row:
            reasons[name] = "the reference itself, not a model that Triton serves here"
        elif why := _barred(row, passing):
            reasons[name] = why
        else:
            candidates.append(name)
    if not candidates:
        tried = any("gates" in row for row in variants.values())
        why_none = "fails no gate" if tried else "was measured"
        return {
            "variant": None,
            "threshold": None,
            "reasons": [f"no converted variant {why_none}; keep serving the PyTorch model"],
            "not_chosen": reasons,
            "sensitivity": [],
        }
    candidates.sort(key=list(BY_NAME).index)
    winner, settled, lost = rank(variants, candidates, rules)
    row = variants[winner]
    moved = row["retuned_threshold"]
    open_ = [gate["gate"] for gate in row["gates"] if not gate["passed"]]
    parity = next(gate for gate in row["gates"] if gate["gate"] == "parity")
    told = [
        parity["found"].partition(";")[0],
        f"no gate is failed, and open are: {', '.join(open_)}" if open_ else "all gates are passed",
        f"{_told(variants, candidates, winner, rules)}{settled}",
        f"the threshold {'moves to' if moved is not None else 'stays at'} "
        f"{threshold if moved is None else moved:.6g}",
    ]
    return {
        "variant": winner,
        "threshold": threshold if moved is None else moved,
        "reasons": told,
        "not_chosen": reasons | lost,
        "sensitivity": sensitivity(variants, candidates, winner, rules),
    }


def _barred(row: Row, passing: bool) -> str | None:
    """Why a variant is no candidate: a gate it fails, or, where others pass all, one that is open."""
    failed = [gate for gate in row["gates"] if gate["state"] == FAILED]
    if failed:
        return f"fails the gate {failed[0]['gate']}: {failed[0]['found']}"
    lacking = [gate for gate in row["gates"] if not gate["passed"]]
    if passing and lacking:
        first = lacking[0]
        return f"is not shown to pass the gate {first['gate']} ({first['state']}): {first['found']}"
    return None


class Figure(NamedTuple):
    """One measured figure, lower is better."""

    value: Callable[[Row], float]
    log_ratio: Callable[[Row, Row], tuple[float, float]]  # and half of its 95 % interval's width
    lost: str  # of a loser, with {ratio}, {inverse}, {interval} and {best}
    unit: str  # of the winner, with {value}


def figures(variants: dict[str, Row], names: list[str]) -> dict[str, Figure]:
    """objective -> figure, for those that all of `names` have: of Triton where all were served."""
    served = all(variants[name]["served"] for name in names)
    sizes = sorted(int(size) for size in variants[names[0]]["latency"])
    found = {"size": Figure(_bytes, _apart(_bytes, 0.0), "larger: its file is {ratio:.2f} times that of {best}",
                            "the file has {value:.0f} bytes")}  # fmt: skip
    if served:
        found["latency"] = Figure(
            served_p50, _apart(served_p50, SERVED_TIE),
            "slower in Triton: {ratio:.2f} times the p50 of {best} with one request in flight",
            "median latency in Triton with one request in flight is {value:.3g} ms",
        )  # fmt: skip
        found["throughput"] = Figure(
            seconds_per_request, _apart(seconds_per_request, SERVED_TIE),
            "less throughput in Triton: {inverse:.0%} of the requests per second of {best}",
            "a request takes Triton {value:.3g} s on average under load",
        )  # fmt: skip
    else:
        for name, size in (("latency", sizes[0]), ("throughput", sizes[-1])):
            found[name] = Figure(
                lambda row, size=size: typical(row, size),  # type: ignore[misc]
                lambda row, other, size=size: in_process(row, other, size),  # type: ignore[misc]
                f"slower at batch {size}: {{ratio:.2f}} times the median of {{best}} "
                "(95 % interval {interval})",
                f"median latency at batch {size} is {{value:.3g}} ms",
            )
    if all(memory(variants[name]) for name in names):
        found["memory"] = Figure(
            _memory, _apart(_memory, TIE), "needs {ratio:.2f} times the memory of {best}",
            "Triton with it takes {value:.0f} MB",
        )  # fmt: skip
    return {name: found[name] for name in OBJECTIVES if name in found}


def compare(
    known: dict[str, Figure], weights: dict[str, float], row: Row, other: Row
) -> tuple[float, float]:
    """Logarithm of the weighted ratio of two variants' figures, and half its interval's width."""
    parts = [(w, *known[name].log_ratio(row, other)) for name, w in weights.items()]
    middle = math.fsum(w * mean for w, mean, _ in parts)
    return middle, math.sqrt(math.fsum((w * half) ** 2 for w, _, half in parts))


def is_tie(middle: float, half: float) -> bool:
    """Whether the interval of a logarithm holds 0, or the ratio is too near 1 to matter."""
    return abs(middle) <= half or abs(math.exp(middle) - 1) < TIE


def usable(known: dict[str, Figure], rules: Rules) -> dict[str, float]:
    """The case's weights of what was measured, summing to 1; latency where none of it was."""
    weights = {name: w for name, w in rules.weights.items() if name in known}
    total = math.fsum(weights.values())
    return {name: w / total for name, w in weights.items()} if total else {"latency": 1.0}


def rank(
    variants: dict[str, Row], names: list[str], rules: Rules
) -> tuple[str, str, dict[str, str]]:
    """(the winner, how it was settled as the end of a sentence, name -> reason of each loser)."""
    known = figures(variants, names)
    weights = usable(known, rules)
    score = {name: compare(known, weights, variants[name], variants[names[0]])[0] for name in names}
    best = min(names, key=lambda name: score[name])
    lost, tied = {}, [best]
    for name in names:
        if name == best:
            continue
        middle, half = compare(known, weights, variants[name], variants[best])
        if is_tie(middle, half):
            tied.append(name)
        else:
            lost[name] = _lost(known, weights, best, middle, half)
    tied.sort(key=lambda name: tuple(key for key, _ in preferences(name, variants[name])))
    winner = tied[0]
    for name in tied[1:]:
        lost[name] = f"as good as {winner} within the noise, but {_differs(variants, name, winner)}"
    if len(tied) > 1:
        settled = ", a tie within the noise that other reasons settle"
    else:
        settled = ", the best of those that may be shipped" if len(names) > 1 else ""
    for missing in rules.weights.keys() - weights.keys():
        settled += f" ({missing} was not measured and does not count)"
    return winner, settled, lost


def _lost(
    known: dict[str, Figure], weights: dict[str, float], best: str, middle: float, half: float
) -> str:
    interval = f"{math.exp(middle - half):.2f} to {math.exp(middle + half):.2f}"
    if len(weights) == 1:
        template = known[next(iter(weights))].lost
    else:
        told = ", ".join(f"{name} {w:.2g}" for name, w in weights.items())
        template = f"{{ratio:.2f}} times the figures of {{best}}, weighted {told}"
    ratio = math.exp(middle)
    return template.format(ratio=ratio, inverse=1 / ratio, best=best, interval=interval)


def preferences(name: str, row: Row) -> list[tuple[float, str]]:
    """What settles a tie, in order: (the lower the better, what it says of one that is higher)."""
    claim = row["claim"]
    flips = claim.get("flips", 0) + claim.get("traffic", {"flips": 0})["flips"]
    factor = (claim.get("certificate") or {}).get("min_safety_factor")
    start = ((row["served"] or {}).get("load") or {}).get("start_s")
    return [
        (float(row["retuned_threshold"] is not None), "its threshold had to move"),
        (flips, f"{flips} verdicts flip"),
        (-ENOUGH if factor is None else -min(factor, ENOUGH),
         f"its smallest safety factor is {math.inf if factor is None else factor:.2g}"),
        (part(name, "config").PORTABLE, "fewer machines run it"),
        (round(math.log(start, 1.5)) if start else 0, f"it takes {start or 0:.2g} s to start"),
        (_bytes(row), f"its file is no smaller ({_bytes(row):.0f} bytes)"),
    ]  # fmt: skip


def _differs(variants: dict[str, Row], name: str, winner: str) -> str:
    pairs = zip(
        preferences(name, variants[name]), preferences(winner, variants[winner]), strict=True
    )
    return next((words for (mine, words), (other, _) in pairs if mine > other),
                "its file is no smaller")  # fmt: skip


def _told(variants: dict[str, Row], names: list[str], winner: str, rules: Rules) -> str:
    known = figures(variants, names)
    told = [known[name].unit.format(value=known[name].value(variants[winner]))
            for name in usable(known, rules)]  # fmt: skip
    return " and ".join(told)


def sensitivity(variants: dict[str, Row], names: list[str], winner: str, rules: Rules) -> list[str]:
    """For each objective that more weight would make another variant win by: from which weight on.

    Ranked anew with its weight raised by whole per cent, at the cost of the others in proportion.
    """
    known = figures(variants, names)
    weights = usable(known, rules)
    found = []
    for objective in known:
        held = weights.get(objective, 0.0)
        for percent in range(math.floor(100 * held) + 1, 101):
            share = percent / 100
            rest = {name: w * (1 - share) / (1 - held) for name, w in weights.items()}
            mixed = {name: w for name, w in (rest | {objective: share}).items() if w}
            other = rank(variants, names, Rules(weights=mixed))[0]
            if other != winner:
                most = max(percent - 1, 100 * held)
                found.append(f"{winner} wins unless {objective} counts more than {most:.3g}%; "
                             f"then {other} does")  # fmt: skip
                break
    return found


def in_process(row: Row, other: Row, size: int) -> tuple[float, float]:
    """Logarithm of the ratio of the median latencies, and half of a 95 % t-interval over blocks."""
    blocks = zip(
        row["latency"][str(size)]["block_p50_ms"],
        other["latency"][str(size)]["block_p50_ms"],
        strict=True,
    )
    logs = [math.log(a / b) for a, b in blocks]
    mean = math.fsum(logs) / len(logs)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    return mean, STUDENT_T * spread / math.sqrt(len(logs))


def typical(row: Row, size: int) -> float:
    """Geometric mean of the medians of the blocks, by whose ratio two variants are compared."""
    blocks = row["latency"][str(size)]["block_p50_ms"]
    return math.exp(math.fsum(math.log(ms) for ms in blocks) / len(blocks))


def _apart(value: Callable[[Row], float], tie: float) -> Callable[[Row, Row], tuple[float, float]]:
    """Compares two figures that were measured once each: less than `tie` apart is no difference."""
    return lambda row, other: (math.log(value(row) / value(other)), math.log1p(tie))


def under_load(served: dict[str, Any]) -> dict[str, Any]:
    """The levels in Triton: perf_analyzer's where it ran, which is for all of a report or for none."""
    found: dict[str, Any] = served.get("perf") or served["load"]
    return found


def served_p50(row: Row) -> float:
    """Milliseconds in Triton with one request in flight."""
    return float(under_load(row["served"])["levels"][0]["latency_p50_ms"])


def seconds_per_request(row: Row) -> float:
    """The inverse of the best throughput in Triton."""
    return 1 / float(under_load(row["served"])["best"]["throughput_per_s"])


def _memory(row: Row) -> float:
    return float(memory(row) or 0)


def _bytes(row: Row) -> float:
    return float(row["precision_proof"]["file_bytes"])
