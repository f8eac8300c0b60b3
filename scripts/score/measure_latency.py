"""Time every variant in process, interleaved, so that drift of the machine hits all alike.

Reads   case.toml, samples.json, the models
Writes  latency.json: p50, p90, p99 with its upper 95 % bound, and throughput, at batch 1 and at the
        largest batch
Runs    on the CPU, or with --device cuda on a GPU; nothing else should run beside it
Usage   python3 -m scripts.score.measure_latency data/digits/case.toml --mode local --device cpu \
            --samples results/digits/samples.json --out results/digits/latency.json \
            torch_fp32=data/digits/weights.pth \
            onnx_fp32=model_repository/digits_onnx_fp32/1/model.onnx
Prints  latency: 2 variants, 2 threads, batch 1: 1000 rounds, batch 32: 1000 rounds
"""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import read_case
from scripts.data.samples import Batch, Run, Samples
from scripts.files import write_json
from scripts.graphs.session import default_threads
from scripts.step import record, step
from scripts.variants import BY_NAME, part
from scripts.verdicts.percentiles import CONFIDENCE, upper

BLOCKS = 20  # medians are kept per block, for the noise of a ratio
ROUNDS = (40, 1000)  # at least, at most
SECONDS = 8.0  # for one batch size, all variants together
WARM_UP = 3
SHORT = 0.02  # seconds
SEED = 0  # of the order in each round


@step(__doc__, "case", "samples", "mode", "device", "out")
@click.argument("models", nargs=-1, required=True, metavar="VARIANT=MODEL...")
def main(
    case_toml: Path, models: tuple[str, ...], samples: Path, mode: str, device: str, out: Path
) -> None:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # PyTorch's idle threads leave the others alone
    case = read_case(case_toml)
    paths = {name: Path(path) for name, _, path in (one.partition("=") for one in models)}
    for name in paths:
        if name not in BY_NAME:
            raise click.ClickException(f"{name!r} is no variant; known are {', '.join(BY_NAME)}.")
    threads = default_threads()
    data = Samples(case, samples)
    sizes = sorted({1, case.max_batch})
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(
                part(name, "open").open_variant(case, name, path, device, threads)
            )[0]
            for name, path in paths.items()
        }
        times = {size: interleave(runs, data.some(size)) for size in sizes}
    content: dict[str, Any] = {
        **record(
            "latency",
            [case_toml, samples, *paths.values()],
            (*[one for name in paths for one in part(name, "open").PACKAGES], "numpy"),
            None,
            mode,
            device,
        ),
        "threads": threads,
        "variants": {
            name: {str(size): summary(times[size][name], size) for size in sizes} for name in paths
        },
    }
    write_json(out, content)
    rounds = ", ".join(f"batch {size}: {len(times[size][name])} rounds" for size in sizes)
    click.echo(f"latency: {len(paths)} variants, {threads} threads, {rounds}")


def interleave(runs: dict[str, Run], batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Seconds of each call, variant -> (rounds,). Each round runs all, in a random order.

    Before a short call stands one that is not timed: what ran before leaves caches and threads in
    a state that would be charged to its successor.
    """
    names = list(runs)
    random = np.random.default_rng(SEED)
    for name in names:
        for _ in range(WARM_UP):
            runs[name](batch)
    taken: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + SECONDS
    for turn in range(ROUNDS[1]):
        if turn >= ROUNDS[0] and time.perf_counter() > end:
            break
        for name in random.permutation(names).tolist():
            if turn and taken[name][-1] < SHORT:
                runs[name](batch)
            start = time.perf_counter()
            runs[name](batch)
            taken[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in taken.items()}


def summary(seconds: NDArray[np.float64], batch: int) -> dict[str, Any]:
    """Percentiles in milliseconds, samples per second, and the median of each block of rounds.

    latency_p99_upper_ms is None with fewer than 299 rounds.
    """
    p50, p90, p99 = (float(p) * 1e3 for p in np.percentile(seconds, [50, 90, 99]))
    blocks = [float(np.median(block)) * 1e3 for block in np.array_split(seconds, BLOCKS)]
    return {
        "rounds": len(seconds),
        "latency_p50_ms": p50,
        "latency_p90_ms": p90,
        "latency_p99_ms": p99,
        "latency_p99_upper_ms": upper(seconds * 1e3, 0.99, CONFIDENCE),
        "throughput_per_s": batch * len(seconds) / float(seconds.sum()),
        "block_p50_ms": blocks,
    }


if __name__ == "__main__":
    main()
