"""Measuring a real Triton server: levels that make sense, wrong answers under load found, no errors."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from test_score_served import inputs, linear, plant, save_onnx, store
from toy_case import Toy, run

from scripts import measure_served
from scripts.bench_served import measure_ceiling
from scripts.measure_served import climb, drive, pool
from scripts.samples import Samples


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows: what is tested is not how fast this machine is."""
    monkeypatch.setattr(measure_served, "SECONDS", (0.2, 5.0))
    monkeypatch.setattr(measure_served, "REQUESTS", (50, 8000))
    monkeypatch.setattr(measure_served, "WARM_UP", 0.05)


def step(toy: Toy, *variants: str) -> Result:
    return run(
        measure_served.main, toy.toml, "--samples", toy.samples, "--repository", "models",
        "--results", toy.results, "--mode", "local", "--device", "cpu",
        "--out", toy.results / "served_latency.json", *(variants or ("onnx_fp32",)),
    )  # fmt: skip


def measured(toy: Toy, *variants: str) -> dict[str, Any]:
    done = step(toy, *variants)
    assert done.exit_code == 0, done.output
    assert "requests/s at " in done.output
    found: dict[str, Any] = json.loads((toy.results / "served_latency.json").read_text())
    return found


def test_levels_that_make_sense(toy: Toy) -> None:
    """Two variants, each in a server of its own."""
    store(toy)
    for end in ("logits.npy", "verdicts.json"):
        content = (toy.results / f"onnx_fp32.{end}").read_bytes()
        (toy.results / f"onnx_fp16.{end}").write_bytes(content)
    save_onnx(Path("models"), "toy_onnx_fp32")
    plant(Path("models"), "toy_onnx_fp16")
    found = measured(toy, "onnx_fp32", "onnx_fp16")
    assert found["step"] == "served_latency" and found["server"]["version"]
    assert list(found["variants"]) == ["onnx_fp32", "onnx_fp16"]
    assert len(found["inputs"]) == 2 + 2 * 4
    for name, row in found["variants"].items():
        assert row["flips"] == 0 and row["samples"] == []
        levels = row["levels"]
        assert [one["concurrency"] for one in levels] == [2**i for i in range(len(levels))]
        assert 3 <= len(levels) <= 7
        assert row["samples_checked"] == sum(one["samples_checked"] for one in levels)
        for one in levels:
            check_level(name, one)
        top = max(one["throughput_per_s"] for one in levels)
        assert row["best"]["throughput_per_s"] == top
        assert set(row["best"]) == {"concurrency", "throughput_per_s"} | {
            f"latency_p{p}_ms" for p in (50, 90, 95, 99)
        }
        assert levels[2]["statistics"]["average_batch"] > 1, "batches formed"
    assert found["variants"]["onnx_fp32"]["backend"] == "onnxruntime"


def check_level(name: str, level: dict[str, Any]) -> None:
    told, shown = level["statistics"], f"{name}: {level}"
    assert level["throughput_per_s"] > 0, shown
    times = [level[f"latency_p{p}_ms"] for p in (50, 90, 95, 99)]
    assert times == sorted(times) and times[0] > 0, shown
    assert level["requests"] >= 50 and level["samples_checked"] >= level["requests"], shown
    assert level["throughput_per_s"] == pytest.approx(level["requests"] / level["seconds"])
    assert 0 < level["generator_cpu_share"] < 2, shown
    # Triton's own numbers: it answered as many as were sent, and its times are within ours.
    assert told["inferences"] == told["requests"] == level["samples_checked"], shown
    assert told["failed"] == 0 and 1 <= told["average_batch"] <= 4, shown
    assert told["queue_ms"] + told["compute_ms"] < max(times) * 2, shown
    # Little's law: in flight = throughput x time in the system.
    assert level["concurrency"] > 0.3 * level["throughput_per_s"] * times[0] / 1e3, shown


def test_wrong_answers_under_load_are_counted(toy: Toy) -> None:
    """Right while requests come one at a time: only a load shows it."""
    z = store(toy)
    plant(Path("models"), "toy_onnx_fp32", "z[3:] = 1 - z[3:]")  # the fourth of a batch
    row = measured(toy)["variants"]["onnx_fp32"]
    first, *others = row["levels"]
    assert first["flips"] == 0
    assert row["flips"] == sum(one["flips"] for one in others) > 0
    assert row["flips"] < row["samples_checked"]
    assert row["samples"] and set(row["samples"]) <= set(range(len(z)))


def test_one_sample_that_is_always_wrong(toy: Toy) -> None:
    z = store(toy)
    z[17] = 1 - z[17]
    np.save(toy.results / "onnx_fp32.logits.npy", z)
    plant(Path("models"), "toy_onnx_fp32")
    row = measured(toy)["variants"]["onnx_fp32"]
    assert row["samples"] == [17]
    assert row["flips"] == pytest.approx(row["samples_checked"] / len(z), rel=0.1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("os.kill(os.getppid(), signal.SIGKILL) if self.executed > 60 else None",
         ["tritonserver ended (killed by SIGKILL); its last words: ", "onnx_fp32.load.log"]),
        ("z = np.repeat(z, 3, axis=1)", ["toy_onnx_fp32", "the shape (", "'logit'"]),
    ],
)  # fmt: skip
def test_what_breaks_under_load_leaves_no_result(toy: Toy, fault: str, words: list[str]) -> None:
    store(toy)
    plant(Path("models"), "toy_onnx_fp32", fault)
    (toy.results / "onnx_fp32.load.log").write_text("")
    (toy.results / "served_latency.json").write_text("the result of before")
    done = step(toy)
    assert done.exit_code == 1 and done.output.startswith("Error: "), done.output
    assert all(word in done.output for word in words), done.output
    assert (toy.results / "served_latency.json").read_text() == "the result of before"
    assert not list(Path().rglob("*.tmp"))


def test_an_error_is_not_tolerated(toy: Toy) -> None:
    """One request in many is refused by the model."""
    store(toy)
    fault = "sizes = 1 / 0 if self.executed == 60 else sizes"
    plant(Path("models"), "toy_onnx_fp32", fault)
    done = step(toy)
    assert done.exit_code == 1 and "division by zero" in done.output, done.output
    assert done.output.startswith("Error: toy_onnx_fp32 in Triton, one of several requests in fli")
    assert not (toy.results / "served_latency.json").exists()


def test_other_numbers_of_logits_and_samples(toy: Toy) -> None:
    store(toy)
    np.save(toy.results / "onnx_fp32.logits.npy", np.zeros(5, np.float32))
    plant(Path("models"), "toy_onnx_fp32")
    assert "5 logits and 61 samples" in step(toy).output


def test_the_ceiling_of_the_generator(tmp_path: Path) -> None:
    found = measure_ceiling(tmp_path)
    assert found["throughput_per_s"] == max(one["throughput_per_s"] for one in found["levels"])
    assert found["throughput_per_s"] > 300
    assert json.dumps(found, allow_nan=False)


# ---- the loop itself, against a server that is a function ------------------------------------------
def load(send: Any, concurrency: int, seconds: tuple[float, float], counts: tuple[int, int]) -> Any:
    return asyncio.run(drive(send, [b"a", b"b", b"c"], concurrency, seconds, counts))


def test_the_loop_keeps_so_many_in_flight() -> None:
    now, seen = 0, []

    async def send(request: bytes) -> bytes:
        nonlocal now
        now += 1
        seen.append(now)
        await asyncio.sleep(0.01)
        now -= 1
        return request

    answers, seconds = load(send, 5, (0.2, 9.0), (10, 1000))
    assert max(seen) == 5
    assert 0.2 <= seconds < 2
    assert all(answer.content == [b"a", b"b", b"c"][answer.place] for answer in answers)
    assert all(0.009 < answer.took < 2 for answer in answers)
    later = [answer for answer in answers if answer.at > seconds]
    assert len(later) <= 4, "only what was in flight when there were enough"


@pytest.mark.parametrize(
    ("seconds", "counts", "wanted"),
    [
        ((0.0, 9.0), (40, 1000), range(40, 41)),  # at least so many
        ((9.0, 9.0), (0, 60), range(60, 61)),  # at most so many
        ((0.1, 0.1), (500, 1000), range(3, 300)),  # no longer than that
    ],
)
def test_the_bounds_of_a_window(
    seconds: tuple[float, float], counts: tuple[int, int], wanted: range
) -> None:
    async def send(request: bytes) -> bytes:
        await asyncio.sleep(0.001)
        return request

    answers, end = load(send, 2, seconds, counts)
    assert sum(answer.at <= end for answer in answers) in wanted


@pytest.mark.parametrize(
    ("throughputs", "levels"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], 4),  # never grows: 1, 2, 4, and once more to be sure
        ([1, 2, 4, 8, 16, 32, 64, 128], 7),  # to the end
        ([1, 2, 4, 3, 8, 8.1, 8.2, 9], 7),  # one bad level does not end it
        ([1, 2, 4, 4.1, 4.15, 9, 9, 9], 5),
    ],
)
def test_it_climbs_until_throughput_stops_growing(
    throughputs: list[float], levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(throughputs)

    async def hold(*_: Any) -> Any:
        return [], {"throughput_per_s": next(given)}

    class Named:
        name = "m"

    monkeypatch.setattr(measure_served, "hold", hold)
    monkeypatch.setattr(measure_served, "read_counters", lambda *_: None)
    monkeypatch.setattr(measure_served, "counted", lambda *_: {})
    assert len(list(climb(None, Named(), []))) == levels  # type: ignore[arg-type]


def test_the_pool_is_spread_over_the_data_and_bounded(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.case import read_case
    from scripts.triton_client import Model

    store(toy)
    data = Samples(read_case(toy.toml), toy.samples)
    model = Model("m", "python", {"x": 1}, "output")
    indices, requests = pool(model, data)
    assert indices.tolist() == list(range(61))
    assert inputs()[5].tobytes() in requests[5]
    monkeypatch.setattr(measure_served, "POOL_BYTES", 10 * len(requests[0]))
    indices, requests = pool(model, data)
    assert len(requests) == 10 and indices[0] == 0 and indices[-1] == 60
    monkeypatch.setattr(measure_served, "POOL_BYTES", 1)
    assert len(pool(model, data)[1]) == 1
    assert linear(inputs()).shape == (61, 1)
