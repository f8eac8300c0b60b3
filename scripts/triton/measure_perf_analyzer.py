"""Measure a variant in a running Triton server with NVIDIA's perf_analyzer, on real samples.

Closed loop over gRPC, one sample a request: 1, 2, 4, ... in flight, until throughput stops growing.
perf_analyzer repeats windows until three in a row agree on throughput and on the p50. Where they
never do it exits with 2 and gives no figures; then exactly as many requests as three windows had are
measured once, and that level is marked as not stable.

The upper bound of p99, `latency_p99_upper_ms`, is null: it is not measured here, since it takes every
latency, and the report has percentiles only. perf_analyzer would write each request's times with
--profile-export-file, and beside them every number that was sent, as text: with images, gigabytes a
level. scripts/triton/measure_served.py measures it, on the same model with the same requests in flight.

Reads   case.toml, samples.json; the hashes of the model's files in model_repository/
Writes  <variant>.perf.json
Runs    in the client container (NVIDIA's SDK image), beside a server that has loaded the variant
Usage   python3 -m scripts.triton.measure_perf_analyzer data/digits/case.toml --variant onnx_fp32 \\
            --samples results/digits/samples.json --repository model_repository \\
            --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 --mode docker --device cuda \\
            --out results/digits/onnx_fp32.perf.json
Prints  onnx_fp32: perf_analyzer finds 3,021 requests/s at 32 in flight, p99 14.1 ms
"""

import csv
import math
import re
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from json import dumps, loads
from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.files import write_json
from scripts.step import record, step
from scripts.triton.measure_served import GROWTH, LEVELS, PERCENTILES, best
from scripts.triton.score_served import SERVED, model_files

PROGRAM = "perf_analyzer"
SAMPLES, SAMPLE_BYTES = 64, 32 << 20  # different requests, at most; what they may hold together
REQUESTS = 100  # in one window, which lasts a second at least
WARM_UP = 20  # requests before each level
WINDOWS, TRIALS = 3, 10  # that must agree; that are tried, by perf_analyzer's default
SECONDS = 3600  # for one level
UNSTABLE = 2  # exit code: no three windows agreed
ERROR = re.compile(r"error|fail|invalid|cannot|unable", re.IGNORECASE)
Figures = dict[str, Any]


@step(__doc__, "case", "samples", "repository", "mode", "device", "out")
@click.option("--variant", required=True, type=click.Choice(SERVED))
@click.option(
    "--http", required=True, help="Where Triton answers HTTP: its counters are read there."
)
@click.option("--grpc", required=True, help="Where it answers gRPC: perf_analyzer asks there.")
def main(
    case_toml: Path, variant: str, samples: Path, repository: Path, http: str, grpc: str, mode: str,
    device: str, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    model = f"{case.name}_{variant}"
    files = model_files(repository, model, variant)
    tool = " ".join(run([PROGRAM, "--version"], "--version")[1].split())
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.json"
        content = get_input_data(Samples(case, samples))
        data.write_text(dumps(content), encoding="utf-8")
        levels = climb(lambda concurrency: measure(model, http, grpc, data, concurrency))
    told = record("perf", [case.path, samples, *files], ("numpy",), variant, mode, device)
    result: dict[str, Any] = {
        **told,
        "versions": told["versions"] | {PROGRAM: tool},
        "samples": len(content["data"]),
        "best": best(levels),
        "levels": levels,
    }
    write_json(out, result)
    top = result["best"]
    unstable = sum(not level["stable"] for level in levels)
    click.echo(
        f"{variant}: {PROGRAM} finds {top['throughput_per_s']:,.0f} requests/s at "
        f"{top['concurrency']} in flight, p99 {top['latency_p99_ms']:.3g} ms"
        + (f"; {unstable} of {len(levels)} levels are not stable" if unstable else "")
    )


def get_input_data(data: Samples) -> dict[str, list[dict[str, Any]]]:
    """Samples spread over the data, as `--input-data` takes them: raw bytes, little-endian, in base64.

    The shape is that of one sample, without the batch; a single number has the shape [1].
    """
    if not len(data):
        raise click.ClickException("There are no samples to send.")
    size = max(1, sum(array.nbytes for array in data.batch(0, 1).values()))
    count = max(1, min(len(data), SAMPLES, SAMPLE_BYTES // size))
    steps = []
    for i in np.linspace(0, len(data) - 1, count).astype(int).tolist():
        step = {}
        for name, array in data.batch(i, i + 1).items():
            raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            shape = list(array.shape[1:]) or [1]
            step[name] = {"content": {"b64": b64encode(raw).decode()}, "shape": shape}
        steps.append(step)
    return {"data": steps}


def climb(measure: Callable[[int], Figures]) -> list[Figures]:
    """A level of 1, 2, 4, ... in flight, until two one after the other bring nothing."""
    levels: list[Figures] = []
    top, idle, concurrency = 0.0, 0, 1
    while concurrency <= LEVELS[1] and idle < 2:
        levels.append(measure(concurrency))
        reached = levels[-1]["throughput_per_s"]
        idle = 0 if concurrency < LEVELS[0] or reached >= top * (1 + GROWTH) else idle + 1
        top, concurrency = max(top, reached), concurrency * 2
    return levels


def measure(model: str, http: str, grpc: str, data: Path, concurrency: int) -> Figures:
    """One level: stable figures, or those of one measurement and `stable` false."""
    report = data.with_name("report.csv")
    report.unlink(missing_ok=True)
    before = read_counts(http, model)
    what = f"{model}, {concurrency} in flight"
    code, _ = run(get_command(model, grpc, data, report, concurrency), what, (0, UNSTABLE))
    if code == UNSTABLE:
        asked = read_counts(http, model)[0] - before[0]
        count = max(REQUESTS, concurrency, asked * WINDOWS // TRIALS)
        before = read_counts(http, model)
        run(get_command(model, grpc, data, report, concurrency, count), f"{what}, {count} requests")
    inferences, executions = (b - a for a, b in zip(before, read_counts(http, model), strict=True))
    return {
        "concurrency": concurrency,
        **read_report(report, concurrency),
        "latency_p99_upper_ms": None,
        "stable": code != UNSTABLE,
        "statistics": {"average_batch": inferences / max(executions, 1)},
    }


def get_command(
    model: str, grpc: str, data: Path, report: Path, concurrency: int, count: int = 0
) -> list[str]:
    """perf_analyzer for one level; with `count`, one measurement of so many requests.

    The percentile is what has to be stable beside the throughput; the report holds all of them.
    """
    windows = ["--measurement-mode", "count_windows", "--measurement-request-count", str(REQUESTS),
               "--max-trials", str(TRIALS)]  # fmt: skip
    return [
        PROGRAM, "-m", model, "-u", grpc, "-i", "grpc", "-b", "1", "--input-data", str(data),
        "--concurrency-range", f"{concurrency}:{concurrency}:1",
        "--warmup-request-count", str(WARM_UP), "--percentile", "50", "-f", str(report),
        *(["--request-count", str(count)] if count else windows),
    ]  # fmt: skip


def run(command: list[str], what: str, good: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """(exit code, all that was said); click.ClickException with the last words on any other code."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        raise click.ClickException(
            f"{PROGRAM} is not installed here. It comes with NVIDIA's SDK image: this step runs in the "
            "client container, with MODE=docker."
        ) from None
    except subprocess.TimeoutExpired:
        raise click.ClickException(
            f"{PROGRAM} ({what}) has not ended within {SECONDS} seconds. The model may be too slow to "
            "be put under load: make all SERVED=no does without."
        ) from None
    if done.returncode not in good:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        told = [line for line in lines if ERROR.search(line)] or lines or ["it said nothing"]
        raise click.ClickException(
            f"{PROGRAM} failed with exit code {done.returncode} ({what}): {told[-1].rstrip('.')}."
        )
    return done.returncode, done.stdout


def read_counts(http: str, model: str) -> tuple[int, int]:
    """(inferences, executions) of the model since it was loaded: Triton's own counters."""
    connection = HTTPConnection(http, timeout=60)
    try:
        connection.request("GET", f"/v2/models/{model}/stats")
        found = loads(connection.getresponse().read())["model_stats"][0]
        return int(found["inference_count"]), int(found["execution_count"])
    except (OSError, HTTPException, ValueError, LookupError) as error:
        raise click.ClickException(
            f"Triton at {http} tells no counters of {model} ({error or type(error).__name__}). Is it "
            "running, with that model loaded?"
        ) from None
    finally:
        connection.close()


def read_report(path: Path, concurrency: int) -> Figures:
    """Throughput in requests per second and latencies in ms, from the CSV's microseconds."""
    columns = {"throughput_per_s": ("Inferences/Second", 1.0)} | {
        f"latency_p{p}_ms": (f"p{p} latency", 1e-3) for p in PERCENTILES
    }
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            rows = [row for row in reader if row.get("Concurrency") == str(concurrency)]
    except FileNotFoundError:
        raise click.ClickException(f"{PROGRAM} ended well and wrote no report.") from None
    wanted = ["Concurrency", *(column for column, _ in columns.values())]
    missing = [column for column in wanted if column not in header]
    if missing:
        raise click.ClickException(
            f"The report of {PROGRAM} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, header)) or 'none'}. Choose a RELEASE whose SDK image writes them."
        )
    if len(rows) != 1:
        raise click.ClickException(
            f"The report of {PROGRAM} has {len(rows)} rows for {concurrency} in flight; one is needed."
        )
    found = {}
    for key, (column, factor) in columns.items():
        try:
            found[key] = float(rows[0][column]) * factor
        except (TypeError, ValueError):
            found[key] = math.nan
        if not 0 < found[key] < math.inf:
            raise click.ClickException(
                f"The report of {PROGRAM} gives {rows[0][column]!r} as {column!r} with {concurrency} in "
                "flight; a number above 0 is needed."
            )
    return found


if __name__ == "__main__":
    main()
