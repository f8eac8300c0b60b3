"""Timing in process: what is said of the times, and the step on the toy case."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.score import measure_latency
from scripts.score.measure_latency import BLOCKS, summary
from tests.toy_case import Toy, run


def seconds(count: int) -> np.ndarray:
    """1 ms to `count` ms in some order."""
    return np.random.default_rng(0).permutation(np.arange(1, count + 1)) / 1e3


def test_what_is_said_of_the_times() -> None:
    times = seconds(400)
    found = summary(times, 8)
    blocks = found.pop("block_p50_ms")
    assert found == pytest.approx(
        {
            "rounds": 400,
            "latency_p50_ms": 200.5,
            "latency_p90_ms": 360.1,
            "latency_p99_ms": 396.01,
            "latency_p99_upper_ms": 400,  # P(Bin(400, 0.99) <= 398) = 0.91
            "throughput_per_s": 8 * 400 / 80.2,
        }
    )
    assert len(blocks) == BLOCKS
    assert blocks[0] == pytest.approx(np.sort(times[:20])[9:11].mean() * 1e3)


def test_the_bound_of_p99_takes_299_rounds() -> None:
    assert summary(seconds(298), 1)["latency_p99_upper_ms"] is None
    assert summary(seconds(299), 1)["latency_p99_upper_ms"] == pytest.approx(299)
    assert summary(seconds(1000), 1)["latency_p99_upper_ms"] == pytest.approx(996)


@pytest.mark.parametrize("rounds", [20, 300])
def test_the_step(checked_toy: Toy, monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    monkeypatch.setattr(measure_latency, "ROUNDS", (rounds, rounds))
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # which the step sets
    out = checked_toy.results / "latency.json"
    done = run(
        measure_latency.main, checked_toy.toml, "--samples", checked_toy.samples, "--mode", "local",
        "--device", "cpu", "--out", out, f"torch_fp32={checked_toy.folder / 'weights.pth'}",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"batch 1: {rounds} rounds, batch 4: {rounds} rounds" in done.output
    found: dict[str, Any] = json.loads(Path(out).read_text())["variants"]["torch_fp32"]
    assert list(found) == ["1", "4"]
    for row in found.values():
        assert row["rounds"] == rounds
        times = [row[f"latency_p{p}_ms"] for p in (50, 90, 99)]
        assert 0 < times[0] <= times[1] <= times[2]
        bound = row["latency_p99_upper_ms"]
        assert bound is None if rounds < 299 else bound >= times[2]
