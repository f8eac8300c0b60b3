"""Ask the production model for the verdict on every sample: is it what the report promises?

The ensemble <case>_verdict is loaded into Triton as it was published, and asked for logit, verdict
and threshold at the largest batch and, for the samples nearest to the threshold, one by one.

Reads   case.toml, samples.json, model_repository/, results/<case>/ (the variant's logits, its flips)
Writes  production.json
Runs    where the server runs: in the tritonserver container, or in .venv
Usage   python3 -m scripts.release.check_production data/digits/case.toml \
            --samples results/digits/samples.json --repository model_repository \
            --results results/digits --mode local --device cpu --out results/digits/production.json
Prints  digits_verdict version 1 (onnx_fp32): 899 of 899 verdicts as promised, logit >= -1.39715
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples, load
from scripts.files import read_json, write_json
from scripts.step import record, step
from scripts.triton.client import SECONDS, failures, grpc_client, length, to_inputs
from scripts.triton.production import current, names
from scripts.triton.server import Server, running_server
from scripts.verdicts.thresholds import is_positive

NEAREST = 100  # samples that are asked for one by one


@step(__doc__, "case", "samples", "repository", "results", "mode", "device", "out")
def main(
    case_toml: Path, samples: Path, repository: Path, results: Path, mode: str, device: str,
    out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    number = current(repository / case.name)
    note = repository / case.name / f"{number}.json"
    version = read_json(note)
    variant, threshold = version["variant"], version["threshold"]
    logits, served = results / f"{variant}.logits.npy", results / f"{variant}.served.json"
    models = list(names(case.name))
    with running_server(repository, models, out.with_name("production.log")) as server:
        found = check(server, case, Samples(case, samples), load(logits), threshold)
    allowed = set(read_json(served)["samples"])  # its own flips in Triton, which the gates judged
    broken = [index for index in found["samples"] if index not in allowed]
    if broken:
        raise click.ClickException(
            f"{case.name}_verdict, version {number}, gives another verdict than {variant} in process "
            f"for {len(broken)} of {len(load(logits))} samples, the first being sample {broken[0]}. "
            f"Run `make rollback CASE={case.name}`, and look at {out.with_name('production.log')}."
        )
    content = {
        **record(
            "production",
            [case.path, samples, note, logits, served],
            ("tritonclient", "numpy"),
            variant,
            mode,
            device,
        ),
        "version": number,
        "threshold": threshold,
        "server": {"version": server.version, "native": server.native},
        **found,
    }
    write_json(out, content)
    count = len(load(logits))
    click.echo(
        f"{case.name}_verdict version {number} ({variant}): {count - len(found['samples'])} of {count} "
        f"verdicts as promised, logit >= {threshold:.6g}"
    )


def check(
    server: Server, case: Case, data: Samples, logits: NDArray[np.float32], threshold: float
) -> dict[str, Any]:
    """Indices of the samples whose verdict differs from `logits` (n,) at `threshold`; the largest
    difference of a logit. Raises click.ClickException when an answer contradicts itself.
    """
    expected = is_positive(logits, threshold)
    differ: set[int] = set()
    worst = 0.0
    with grpc_client(server) as client:
        for rows, batch in asked(case, data, logits, threshold):
            z, verdicts, told = ask(server, client, case, batch)
            if not (told == threshold).all() or not np.array_equal(
                is_positive(z, threshold), verdicts
            ):
                raise click.ClickException(
                    f"{case.name}_verdict contradicts itself or its version: threshold {told[0]!r} (published "
                    f"with {threshold!r}), logit {z[0]!r}, verdict {verdicts[0]}. Publish it again: remove "
                    f"the config.pbtxt of {case.name} and run `make all`."
                )
            differ.update(rows[verdicts != expected[rows]].tolist())
            delta = np.abs(z.astype(np.float64) - logits[rows])
            worst = max(worst, float(delta[np.isfinite(delta)].max(initial=0.0)))
    return {"samples": sorted(differ), "metrics": {"deviation_max_absolute": worst}}


def asked(
    case: Case, data: Samples, logits: NDArray[np.float32], threshold: float
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """(indices, batch): all samples at the largest batch, then the nearest to the threshold alone."""
    for start in range(0, len(data), case.max_batch):
        batch = data.batch(start, start + case.max_batch)
        yield np.arange(start, min(start + case.max_batch, len(data))), batch
    for i in np.argsort(np.abs(logits - threshold), kind="stable")[:NEAREST].tolist():
        yield np.array([i]), data.batch(i, i + 1)


def ask(
    server: Server, client: Any, case: Case, batch: Batch
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """logit, verdict and threshold for each sample of the batch, from the ensemble."""
    import tritonclient.grpc as triton

    model = f"{case.name}_verdict"
    ranks = {one.name: max(1, len(one.shape)) for one in case.inputs}
    inputs = to_inputs(triton.InferInput, ranks, batch)
    with failures(server, model, f"a batch of {length(batch)}"):
        answer = client.infer(model, inputs, client_timeout=SECONDS)
    logit, verdict, threshold = (
        answer.as_numpy(name)[:, 0] for name in ("logit", "verdict", "threshold")
    )
    return logit, verdict, threshold


if __name__ == "__main__":
    main()
