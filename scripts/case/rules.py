"""The rules of a case: how its threshold is chosen, what a variant must meet, and what ranks them.

Read from the tables [threshold], [gates] and [ranking] of case.toml; each key has a default.
"""

from dataclasses import dataclass, field
from typing import Any

from scripts.case.keys import check, is_finite, one_of

POLICIES = ("max_recall", "widest_gap")
OBJECTIVES = ("latency", "throughput", "memory", "size")


@dataclass(frozen=True)
class Rules:
    """What case.toml asks of the verdicts and of a release. Shares and confidences are fractions."""

    policy: str = "max_recall"  # or "widest_gap"
    recall_slack: float = 0.005  # of "widest_gap": the share of the recall given up
    guarantee: float | None = None  # confidence that the precision holds on new data
    flip_rate: float = 0.001  # the largest share of new samples that may flip
    confidence: float = 0.95  # of all bounds
    zero_flips: bool = False  # also no observed flip
    precision_slack: float = 0.1  # how far the bound of the precision may lie below it
    latency_p99_ms: float | None = None
    memory_mb: float | None = None
    weights: dict[str, float] = field(default_factory=lambda: {"latency": 1.0})  # they sum to 1


def read_rules(content: dict[str, Any]) -> Rules:
    """The rules in the content of a case.toml. Raises ValueError with a sentence."""
    threshold, gates, ranking = (_table(content, key) for key in ("threshold", "gates", "ranking"))
    policy = threshold.get("policy", Rules.policy)
    one_of("policy in [threshold]", policy, POLICIES)
    guarantee = threshold.get("guarantee")
    if guarantee is not None:
        _confidence("guarantee in [threshold]", guarantee)
        if policy == "widest_gap":
            raise ValueError(
                "[threshold] asks for policy = 'widest_gap' and for a guarantee, and the guarantee "
                "chooses the threshold by itself; leave one of the two out."
            )
    slack = threshold.get("recall_slack", Rules.recall_slack)
    if not 0 <= slack < 1:
        raise ValueError(
            f"recall_slack in [threshold] is {slack}; it must be at least 0 and below 1."
        )
    flip_rate = gates.get("flip_rate", Rules.flip_rate)
    if not 0 < flip_rate < 1:
        raise ValueError(f"flip_rate in [gates] is {flip_rate}; it must lie between 0 and 1.")
    confidence = gates.get("confidence", Rules.confidence)
    _confidence("confidence in [gates]", confidence)
    precision_slack = gates.get("precision_slack", Rules.precision_slack)
    if not 0 <= precision_slack <= 1:
        raise ValueError(f"precision_slack in [gates] is {precision_slack}; it must be 0 to 1.")
    return Rules(
        policy=policy,
        recall_slack=float(slack),
        guarantee=guarantee,
        flip_rate=flip_rate,
        confidence=confidence,
        zero_flips=gates.get("zero_flips", Rules.zero_flips),
        precision_slack=float(precision_slack),
        latency_p99_ms=_budget(gates, "latency_p99_ms"),
        memory_mb=_budget(gates, "memory_mb"),
        weights=_weights(ranking),
    )


def _table(content: dict[str, Any], key: str) -> dict[str, Any]:
    table: dict[str, Any] = content.get(key, {})
    check(table, key)
    return table


def _confidence(key: str, value: float) -> None:
    if not 0.5 < value < 1:
        raise ValueError(
            f"{key} is {value}; a confidence must lie above 0.5 and below 1, like 0.95."
        )


def _budget(gates: dict[str, Any], key: str) -> float | None:
    value = gates.get(key)
    if value is None:
        return None
    if not is_finite(value) or value <= 0:
        raise ValueError(
            f"{key} in [gates] is {value}; a budget must be a finite number above 0. "
            "Leave it out where there is none."
        )
    return float(value)


def _weights(ranking: dict[str, Any]) -> dict[str, float]:
    """Weights above 0, normalised to sum 1; an objective is a single weight."""
    if "objective" in ranking and "weights" in ranking:
        raise ValueError("[ranking] holds objective and weights; keep one of the two.")
    if "weights" not in ranking:
        objective = ranking.get("objective", "latency")
        one_of("objective in [ranking]", objective, OBJECTIVES)
        return {objective: 1.0}
    weights = ranking["weights"]
    check(weights, "ranking.weights")
    for name, value in weights.items():
        if not is_finite(value) or value < 0:
            raise ValueError(
                f"the weight of {name} in [ranking] is {value}; it must be a finite number of at "
                "least 0."
            )
    largest = max(weights.values(), default=0)
    if not largest:
        raise ValueError(
            f"weights in [ranking] is {weights!r}; at least one weight must be above 0."
        )
    scaled = {name: value / largest for name, value in weights.items() if value}
    return {name: value / sum(scaled.values()) for name, value in scaled.items()}
