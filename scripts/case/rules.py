"""The rules of a case: how its threshold is chosen, what a variant must meet, and what ranks them.

Written in the tables [threshold], [gates] and [ranking] of case.toml; each key has a default.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Policy = Literal["max_recall", "widest_gap"]
Objective = Literal["latency", "throughput", "memory", "size"]
POLICIES: tuple[str, ...] = get_args(Policy)
OBJECTIVES: tuple[str, ...] = get_args(Objective)


@dataclass(frozen=True)
class Rules:
    """What case.toml asks of the verdicts and of a release. Shares and confidences are fractions."""

    policy: Policy = "max_recall"  # or "widest_gap"
    recall_slack: float = 0.005  # of "widest_gap": the share of the recall given up
    guarantee: float | None = None  # confidence that the precision holds on new data
    flip_rate: float = 0.001  # the largest share of new samples that may flip
    confidence: float = 0.95  # of all bounds
    zero_flips: bool = False  # also no observed flip
    precision_slack: float = 0.1  # how far the bound of the precision may lie below it
    latency_p99_ms: float | None = None
    memory_mb: float | None = None
    weights: dict[str, float] = field(default_factory=lambda: {"latency": 1.0})  # they sum to 1


def normalised(weights: dict[str, float]) -> dict[str, float]:
    """Those above 0, of which there is one at least, scaled to the sum 1."""
    largest = max(weights.values())
    scaled = {name: value / largest for name, value in weights.items() if value}
    return {name: value / sum(scaled.values()) for name, value in scaled.items()}
