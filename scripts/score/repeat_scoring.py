"""Score a variant again under other conditions: does a verdict depend on batch, slot or run?

A model can be right at batch 1 and wrong in a batch, or answer one sample by what stands beside it.
So every sample is scored again in a fresh process: as before, with the samples of each batch in
other slots, in batches of an odd size, and alone. For the reference the same shows its own noise;
where it ran on a GPU it is run on the CPU as well.

Reads   case.toml, samples.json, the model, the variant's logits and verdicts
Writes  <variant>.repeats.json
Runs    where the variant runs
Usage   python3 -m scripts.score.repeat_scoring data/digits/case.toml --variant onnx_fp32 \
            --samples results/digits/samples.json --mode local --device cpu \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --logits results/digits/onnx_fp32.logits.npy \
            --verdicts results/digits/onnx_fp32.verdicts.json \
            --out results/digits/onnx_fp32.repeats.json
Prints  onnx_fp32: 4 other conditions, 0 of 899 verdicts depend on them, largest deviation 2.9e-06
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Run, Samples, load
from scripts.files import finite, read_json, write_json
from scripts.graphs.session import default_threads, trial_sizes
from scripts.step import progress, record, step
from scripts.variants import BY_NAME, part
from scripts.verdicts.compare_verdicts import deployed
from scripts.verdicts.heads import log_odds
from scripts.verdicts.thresholds import is_positive

NOISE = (
    1e-3  # a logit this near to the threshold, relative to 1 + |threshold|, may fall on either side
)
Condition = Callable[[Batch], NDArray[Any]]  # a batch to its raw outputs, in the batch's order


@step(__doc__, "case", "variant", "samples", "model", "mode", "device", "logits", "verdicts", "out")
def main(
    case_toml: Path, variant: str, samples: Path, model: Path, mode: str, device: str,
    logits: Path, verdicts: Path, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    data = Samples(case, samples)
    told = read_json(verdicts)
    threads = default_threads()
    with ExitStack() as stack:
        opening = part(variant, "open")
        run, _ = stack.enter_context(opening.open_variant(case, variant, model, device, threads))
        others = conditions(run, case.max_batch)
        if BY_NAME[variant].source is None and device == "cuda":
            plain = opening.open_variant(case, variant, model, "cpu", threads)
            others["on the CPU"] = stack.enter_context(plain)[0]
        found = repeat(case, data, others, load(logits), deployed(told), variant)
    content = {
        **record(
            "repeats",
            [case.path, samples, model, logits, verdicts],
            (*opening.PACKAGES, "numpy"),
            variant,
            mode,
            device,
        ),
        **found,
    }
    write_json(out, content)
    largest = found["metrics"]["deviation_max_absolute"]
    click.echo(
        f"{variant}: {len(others)} other conditions, {found['metrics']['flips']} of {len(data)} "
        "verdicts depend on them, largest deviation "
        + ("not finite" if largest is None else f"{largest:.2g}")
    )


def conditions(run: Run, max_batch: int) -> dict[str, Condition]:
    """name -> how to run a batch otherwise. Sizes: one, an odd one, the largest."""
    found = {"again": run, "other slots": lambda batch: turned(run, batch)}
    for size in trial_sizes(max_batch)[:-1] if max_batch > 1 else []:
        found[f"batch {size}"] = in_parts(run, size)
    return found


def turned(run: Run, batch: Batch) -> NDArray[Any]:
    """Each sample one slot further, the last one first; the outputs in the order of before."""
    output = run({name: np.roll(array, 1, axis=0) for name, array in batch.items()})
    return np.roll(output, -1, axis=0)


def in_parts(run: Run, size: int) -> Condition:
    """The batch, `size` samples at a time."""

    def parts(batch: Batch) -> NDArray[Any]:
        length = len(next(iter(batch.values())))
        cuts = range(0, length, size)
        return np.concatenate(
            [run({name: array[i : i + size] for name, array in batch.items()}) for i in cuts]
        )

    return parts


def repeat(
    case: Case, data: Samples, others: dict[str, Condition], logits: NDArray[np.float32],
    threshold: float, name: str,
) -> dict[str, Any]:  # fmt: skip
    """The samples through every condition, one batch in memory at a time.

    logits: (n,) float32, of the same model under the ordinary condition. `samples` in the answer
    are the indices whose verdict changes under any condition, `noise` those of them that lie so near
    to the threshold that rounding explains it. A logit that is not finite has the negative verdict.
    Raises ValueError when the numbers of samples differ.
    """
    if len(logits) != len(data) or not len(data):
        raise ValueError(f"{len(logits)} logits and {len(data)} samples")
    depends: set[int] = set()
    found: dict[str, dict[str, Any]] = {
        key: {"flips": 0, "deviation_max_absolute": 0.0} for key in others
    }
    start = 0
    with progress(len(data), f"{name} repeated") as bar:
        for batch in data.batches(case.max_batch):
            expected = logits[start : start + case.max_batch]
            for key, z in scored(case, others, batch):
                flipped = np.flatnonzero(
                    is_positive(z, threshold) != is_positive(expected, threshold)
                )
                depends.update((flipped + start).tolist())
                found[key]["flips"] += len(flipped)
                same = (z == expected) | (np.isnan(z) & np.isnan(expected))
                delta = np.where(same, 0.0, np.abs(z.astype(np.float64) - expected))
                found[key]["deviation_max_absolute"] = float(
                    np.maximum(found[key]["deviation_max_absolute"], delta.max())
                )
            start += len(expected)
            bar.update(len(expected))
    for row in found.values():
        row["deviation_max_absolute"] = finite(row["deviation_max_absolute"])
    worsts = [row["deviation_max_absolute"] for row in found.values()]
    return {
        "threshold": threshold,
        "conditions": found,
        "samples": sorted(depends),
        "noise": [
            i for i in sorted(depends) if abs(logits[i] - threshold) <= NOISE * (1 + abs(threshold))
        ],
        "metrics": {
            "flips": len(depends),
            "deviation_max_absolute": None if None in worsts else max(worsts, default=0.0),
        },
    }


def scored(
    case: Case, others: dict[str, Condition], batch: Batch
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name of the condition, its logits) for one batch."""
    for key, run in others.items():
        raw = run(batch)
        yield key, log_odds(raw, case.head, case.positive_class).astype(np.float32)


if __name__ == "__main__":
    main()
