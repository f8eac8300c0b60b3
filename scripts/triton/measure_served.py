"""Measure latency and throughput of the variants in a running Triton server, and check the verdicts.

Closed loop: so many requests of one sample are always in flight over gRPC, each followed by the next as
soon as it is answered, and Triton puts them into batches. The number doubles until throughput stops
growing. Every answer's verdict is compared with the stored one, as MLPerf's TEST01 does with some.

Each variant has a server of its own: production loads one model, and what another keeps in memory,
or its threads that wait, would be charged to it.

latency_p99_upper_ms     the upper 95 % bound of p99; null with fewer than 299 requests. Exact where
                         requests are independent: best with one in flight, since those that wait
                         together are late together
latency_p50_interval_ms  the 95 % interval of p50, likewise; null with fewer than 6
start_s                  from the start of tritonserver until the model is loaded and ready
memory_mb                the most that the server and its backends' processes held, in 10^6 bytes;
                         see triton_memory.memory_mb
gpu_memory_mb            what is in use of all GPUs that the server sees, after the last level, as
                         Triton's metrics tell it: other programs' share too. null on the CPU, and
                         where Triton does not tell

Reads   case.toml, samples.json, model_repository/, the variants' logits and verdicts in --results
Writes  served_latency.json, and <variant>.load.log of each server beside it
Runs    where the server runs: in the tritonserver container, or in .venv; nothing else beside it
Usage   python3 -m scripts.triton.measure_served data/digits/case.toml --samples results/digits/samples.json \
            --repository model_repository --results results/digits --mode local --device cpu \
            --out results/digits/served_latency.json onnx_fp32 onnx_fp16 torchscript_fp32
Prints  onnx_fp32: 3,021 requests/s at 32 in flight, p99 14.1 ms, 0 of 21,830 verdicts differ
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples, load
from scripts.files import read_json, write_json
from scripts.step import record, step
from scripts.triton.client import Model, Send, connect, decode, encode, read_model, together
from scripts.triton.counters import counted, read_counters
from scripts.triton.memory import gpu_memory_mb, memory_mb, seconds_since_start
from scripts.triton.score_served import SERVED, model_files
from scripts.triton.server import Server, running_server
from scripts.verdicts.compare_verdicts import deployed
from scripts.verdicts.heads import log_odds
from scripts.verdicts.percentiles import CONFIDENCE, interval, upper
from scripts.verdicts.thresholds import is_positive

LEVELS = (4, 64)  # requests in flight: up to the first in any case, to the second at most
GROWTH = 0.05  # of throughput, below which it has stopped growing
REQUESTS = (400, 4000)  # in one window: at least, at most
SECONDS = (1.0, 20.0)  # of one window: at least, unless there are many requests; at most
WARM_UP = 0.2  # seconds before each window
POOL, POOL_BYTES = 1024, 64 << 20  # different requests, at most; what they may hold together
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Answer:
    """One answered request: which of the pool, when, after how long (seconds), and what came."""

    place: int
    at: float
    took: float
    content: bytes


@step(__doc__, "case", "samples", "repository", "results", "mode", "device", "out")
@click.argument("variants", nargs=-1, required=True, type=click.Choice(SERVED))
def main(
    case_toml: Path, variants: tuple[str, ...], samples: Path, repository: Path, results: Path,
    mode: str, device: str, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    data = Samples(case, samples)
    used = [case.path, samples]
    found: dict[str, Any] = {}
    for variant in variants:
        name = f"{case.name}_{variant}"
        logits, verdicts = (results / f"{variant}.{end}" for end in ("logits.npy", "verdicts.json"))
        used += [*model_files(repository, name, variant), logits, verdicts]
        threshold = deployed(read_json(verdicts))
        log = out.with_name(f"{variant}.load.log")
        with running_server(repository, [name], log, at_once=True) as server:
            told = {"version": server.version, "native": server.native}
            start = seconds_since_start(server.process.pid)
            found[variant] = measure(server, name, case, data, load(logits), threshold) | {
                "start_s": start,
                "memory_mb": memory_mb(server.process.pid),
                "gpu_memory_mb": gpu_memory_mb(server.metrics) if device == "cuda" else None,
            }
    content = {
        **record("served_latency", used, ("tritonclient", "grpcio", "numpy"), None, mode, device),
        "server": told,
        "variants": found,
    }
    write_json(out, content)
    for variant, row in found.items():
        best = row["best"]
        click.echo(
            f"{variant}: {best['throughput_per_s']:,.0f} requests/s at {best['concurrency']} in "
            f"flight, p99 {best['latency_p99_ms']:.3g} ms, {row['flips']:,} of "
            f"{row['samples_checked']:,} verdicts differ"
        )


def measure(
    server: Server, name: str, case: Case, data: Samples, logits: NDArray[np.float32],
    threshold: float,
) -> dict[str, Any]:  # fmt: skip
    """Every level of one model that is loaded. logits: (n,) float32, of the same file in process.

    `samples` in the answer are the indices whose verdict differed in any answer; `flips` and
    `samples_checked` count answers.
    """
    if len(logits) != len(data) or not len(data):
        raise click.ClickException(f"{name}: {len(logits)} logits and {len(data)} samples.")
    model = read_model(server, name)
    indices, requests = pool(model, data)
    expected = is_positive(logits[indices], threshold)
    levels: list[dict[str, Any]] = []
    wrong: set[int] = set()
    for answers, level in climb(server, model, requests):
        places = np.array([answer.place for answer in answers])
        try:
            raw = np.concatenate([decode(model, answer.content, 1) for answer in answers])
            z = log_odds(raw, case.head, case.positive_class).astype(np.float32)
        except ValueError as error:
            raise click.ClickException(f"{name} in Triton: {error}.") from None
        flipped = is_positive(z, threshold) != expected[places]
        wrong.update(indices[places[flipped]].tolist())
        level |= {"flips": int(flipped.sum()), "samples_checked": len(answers)}
        levels.append(level)
    return {
        "backend": model.backend,
        "threshold": threshold,
        "flips": sum(level["flips"] for level in levels),
        "samples_checked": sum(level["samples_checked"] for level in levels),
        "samples": sorted(wrong),
        "best": best(levels),
        "levels": levels,
    }


def best(levels: list[dict[str, Any]]) -> dict[str, Any]:
    """What is said of the level with the highest throughput."""
    top = max(levels, key=lambda level: level["throughput_per_s"])
    return {key: value for key, value in top.items() if key.startswith(("conc", "thr", "lat"))}


def pool(model: Model, data: Samples) -> tuple[NDArray[np.int64], list[bytes]]:
    """(indices of samples spread over the data, a request for each), ready to be sent."""
    size = len(encode(model, data.batch(0, 1)))
    count = max(1, min(len(data), POOL, POOL_BYTES // size))
    indices = np.linspace(0, len(data) - 1, count).astype(np.int64)
    return indices, [encode(model, data.batch(int(i), int(i) + 1)) for i in indices]


def climb(
    server: Server, model: Model, requests: list[bytes]
) -> Iterator[tuple[list[Answer], dict[str, Any]]]:
    """Twice as many in flight until throughput stops growing: (all answers, what was measured).

    It has stopped when two levels one after the other bring nothing: one may be bad luck.
    """
    top, idle, concurrency = 0.0, 0, 1
    while concurrency <= LEVELS[1] and idle < 2:
        before = read_counters(server, model.name)
        answers, level = asyncio.run(hold(server, model.name, requests, concurrency))
        level["statistics"] = counted(server, model.name, before, len(answers))
        yield answers, level
        reached = level["throughput_per_s"]
        idle = 0 if concurrency < LEVELS[0] or reached >= top * (1 + GROWTH) else idle + 1
        top, concurrency = max(top, reached), concurrency * 2


async def hold(
    server: Server, name: str, requests: list[bytes], concurrency: int
) -> tuple[list[Answer], dict[str, Any]]:
    """One level: a warm-up and a window. All answers, and what the window says."""
    send, close = await connect(server, name)
    try:
        early, _ = await drive(send, requests, concurrency, (WARM_UP, WARM_UP), (0, REQUESTS[1]))
        busy = time.process_time()
        answers, seconds = await drive(send, requests, concurrency, SECONDS, REQUESTS)
        busy = time.process_time() - busy
    finally:
        await close()
    inside = [answer for answer in answers if answer.at <= seconds]
    took = np.array([answer.took for answer in inside]) * 1e3
    level = {
        "concurrency": concurrency,
        "requests": len(inside),
        "seconds": seconds,
        "throughput_per_s": len(inside) / seconds,
        **{f"latency_p{p}_ms": float(np.percentile(took, p)) for p in PERCENTILES},
        "latency_p99_upper_ms": upper(took, 0.99, CONFIDENCE),
        "latency_p50_interval_ms": interval(took, 0.5, CONFIDENCE),
        "generator_cpu_share": busy / max(answer.at for answer in answers),
    }
    return early + answers, level


async def drive(
    send: Send, requests: list[bytes], concurrency: int, seconds: tuple[float, float],
    counts: tuple[int, int],
) -> tuple[list[Answer], float]:  # fmt: skip
    """Keep `concurrency` requests in flight until there are enough answers.

    Gives all answers, and the second at which there were enough; later ones only empty the queue.
    """
    answers: list[Answer] = []
    places = itertools.cycle(range(len(requests)))
    begin, end = time.perf_counter(), float("inf")

    async def work() -> None:
        nonlocal end
        while end == float("inf"):
            place, start = next(places), time.perf_counter()
            content = await send(requests[place])
            now = time.perf_counter()
            answers.append(Answer(place, now - begin, now - start, content))
            passed, count = now - begin, len(answers)
            enough = passed >= seconds[0] and count >= counts[0]
            if enough or passed >= seconds[1] or count >= counts[1]:
                end = min(end, passed)

    await together(work() for _ in range(concurrency))
    return answers, end


if __name__ == "__main__":
    main()
