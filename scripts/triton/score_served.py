"""Score a variant through a running Triton server: does it give the verdicts it gives in process?

The whole test set goes through the server by HTTP and by gRPC, at batch 1, an odd batch and the largest;
with the samples of a batch in other slots; as requests of one sample with several in flight, which
Triton puts into batches; and after a restart of the server. Each logit is compared with that of the
same model file in process.

Reads   case.toml, samples.json, model_repository/, the variant's logits and verdicts
Writes  <variant>.served.json, and the server's log
Runs    where the server runs: in the tritonserver container, or in .venv
Usage   python3 -m scripts.triton.score_served data/digits/case.toml --variant onnx_fp32 \
            --samples results/digits/samples.json --repository model_repository \
            --mode local --device cpu \
            --logits results/digits/onnx_fp32.logits.npy \
            --verdicts results/digits/onnx_fp32.verdicts.json \
            --log results/digits/onnx_fp32.server.log \
            --out results/digits/onnx_fp32.served.json
Prints  onnx_fp32: 9 conditions in Triton, 0 of 899 verdicts differ, largest deviation 2.9e-06
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples, load
from scripts.files import read_json, write_json
from scripts.graphs.session import trial_sizes
from scripts.score.repeat_scoring import Condition, in_parts, repeat, turned
from scripts.step import record, step
from scripts.triton.client import (
    Run,
    connect,
    decode,
    encode,
    length,
    open_grpc,
    open_http,
    read_model,
    together,
)  # fmt: skip
from scripts.triton.counters import counted, read_counters
from scripts.triton.server import Server, running_server
from scripts.variants import BY_NAME, VARIANTS
from scripts.verdicts.compare_verdicts import deployed

IN_FLIGHT = 16  # requests of one sample
SERVED = [variant.name for variant in VARIANTS if variant.file is not None]


@step(
    __doc__, "case", "samples", "repository", "mode", "device", "logits", "verdicts", "log", "out"
)
@click.option("--variant", required=True, type=click.Choice(SERVED))
def main(
    case_toml: Path, variant: str, samples: Path, repository: Path, mode: str, device: str,
    logits: Path, verdicts: Path, log: Path, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    data = Samples(case, samples)
    model = f"{case.name}_{variant}"
    files = model_files(repository, model, variant)
    try:
        found = serve(
            case, data, repository, model, load(logits), deployed(read_json(verdicts)), log
        )
    except ValueError as error:  # outputs that the head does not take, or another number of logits
        raise click.ClickException(f"{model} in Triton: {error}.") from None
    content = {
        **record(
            "served",
            [case.path, samples, *files, logits, verdicts],
            ("tritonclient", "grpcio", "numpy"),
            variant,
            mode,
            device,
        ),
        **found,
    }
    write_json(out, content)
    largest = found["metrics"]["deviation_max_absolute"]
    click.echo(
        f"{variant}: {len(found['conditions'])} conditions in Triton, "
        f"{found['metrics']['flips']} of {len(data)} verdicts differ, largest deviation "
        + ("not finite" if largest is None else f"{largest:.2g}")
    )


def model_files(repository: Path, model: str, variant: str) -> list[Path]:
    """What Triton loads: the configuration and the model file."""
    files = [
        repository / model / "config.pbtxt",
        repository / model / "1" / f"{BY_NAME[variant].file}",
    ]
    for path in files:
        if not path.is_file():
            raise click.ClickException(f"{path} is missing; run `make all` to build it.")
    return files


def serve(
    case: Case, data: Samples, repository: Path, model: str, logits: NDArray[np.float32],
    threshold: float, log: Path,
) -> dict[str, Any]:  # fmt: skip
    """The samples through the server under every condition; the server is started twice.

    logits: (n,) float32, of the same model file in process.
    """
    blocks = replace(case, max_batch=max(case.max_batch, IN_FLIGHT))  # of which each is a request
    several, restarted = f"{IN_FLIGHT} in flight", "after a restart"
    with running_server(repository, [model], log, at_once=True) as server:
        told = {
            "version": server.version,
            "native": server.native,
            "backend": read_model(server, model).backend,
        }
        with open_http(server, model) as http, open_grpc(server, model) as grpc:
            others = conditions(http, grpc, case.max_batch)
            parts = [repeat(case, data, others, logits, threshold, f"{model} served")]
        before = read_counters(server, model)
        with open_in_flight(server, model, IN_FLIGHT) as run:
            parts.append(repeat(blocks, data, {several: run}, logits, threshold, several))
        statistics = counted(server, model, before, len(data))
    again = running_server(repository, [model], log, at_once=True)
    with again as server, open_grpc(server, model) as run:
        parts.append(repeat(case, data, {restarted: run}, logits, threshold, restarted))
    return {"server": told, "in_flight": IN_FLIGHT, "statistics": statistics, **merge(parts)}


def conditions(http: Run, grpc: Run, max_batch: int) -> dict[str, Condition]:
    """name -> how to send a batch."""
    found: dict[str, Condition] = {}
    for protocol, run in (("HTTP", http), ("gRPC", grpc)):
        for size in trial_sizes(max_batch):
            found[f"{protocol}, batch {size}"] = in_parts(run, size)
    if max_batch > 1:
        found["gRPC, other slots"] = lambda batch: turned(grpc, batch)
    return found


def merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several answers of `repeat` as one: a sample counts once, whatever number of conditions."""
    conditions = {name: row for part in parts for name, row in part["conditions"].items()}
    samples = sorted({index for part in parts for index in part["samples"]})
    worsts = [row["deviation_max_absolute"] for row in conditions.values()]
    return {
        "threshold": parts[0]["threshold"],
        "conditions": conditions,
        "samples": samples,
        "metrics": {
            "flips": len(samples),
            "deviation_max_absolute": None if None in worsts else max(worsts),
        },
    }


@contextmanager
def open_in_flight(server: Server, name: str, count: int) -> Iterator[Run]:
    """A function from a batch to the raw output, each sample a request, `count` of them in flight.

    Outputs stand in the order of the samples, whatever the order of the answers.
    """
    model = read_model(server, name)
    loop = asyncio.new_event_loop()
    send, close = loop.run_until_complete(connect(server, name))

    def run(batch: Batch) -> NDArray[Any]:
        rows: list[Any] = [None] * length(batch)
        places = iter(range(len(rows)))

        async def work() -> None:
            for i in places:  # shared: each worker takes the next
                request = encode(model, {key: array[i : i + 1] for key, array in batch.items()})
                rows[i] = decode(model, await send(request), 1)

        loop.run_until_complete(together(work() for _ in range(count)))
        return np.concatenate(rows)

    try:
        yield run
    finally:
        loop.run_until_complete(close())
        loop.close()


if __name__ == "__main__":
    main()
