"""Compare a converted model with the ONNX it was made from, tensor by tensor.

A converted ONNX is compared with the float32 one, both in ONNX Runtime on the CPU; a TensorRT engine
with its ONNX in ONNX Runtime on the CPU, by an engine built anew from that ONNX. All tensors are
marked as outputs on both sides. That disables fusion, and ONNX Runtime runs a float16 model with
true rounding to half (scripts/graphs/half_rounding.py), so inner values may differ from those of the model
that is served: the final output is therefore compared with the unmarked one's.

Reads   case.toml, samples.json, both models, both variants' logits, torch_fp32.threshold.json
Writes  <variant>.layers.json
Runs    on the CPU; for TensorRT in its container, on a GPU
Usage   python3 -m scripts.score.compare_layers data/digits/case.toml --variant onnx_fp16 \
            --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp16/1/model.onnx \
            --source model_repository/digits_onnx_fp32/1/model.onnx \
            --logits results/digits/onnx_fp16.logits.npy \
            --reference results/digits/torch_fp32.logits.npy \
            --threshold results/digits/torch_fp32.threshold.json \
            --out results/digits/onnx_fp16.layers.json
Prints  onnx_fp16: 8 tensors compared on 32 samples, largest relative error 0.0013 at relu_1
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples, load
from scripts.files import read_json, write_json
from scripts.graphs.marked import Outputs, marked, quiet
from scripts.step import record, step
from scripts.variants import BY_NAME, Variant, part
from scripts.verdicts.thresholds import is_positive

SAMPLES = 32  # every inner tensor of a batch is held in memory: a few samples have to do
BATCH = 8
JUMP = 4.0  # an error this many times that of what the node was given ...
NOTICEABLE = 2.0**-9  # ... and beyond four roundings to float16 (2^-11 each)


@step(
    __doc__,
    "case",
    "variant",
    "samples",
    "model",
    "source",
    "logits",
    "reference",
    "threshold",
    "out",
)
def main(
    case_toml: Path, variant: str, samples: Path, model: Path, source: Path, logits: Path,
    reference: Path, threshold: Path, out: Path,
) -> None:  # fmt: skip
    case = read_case(case_toml)
    t = read_json(threshold)["metrics"]["logit"]
    rows = worst_samples(load(logits), load(reference), t)
    data = Samples(case, samples)
    tensors, unmarked = compare_models(case, data, rows, source, model, BY_NAME[variant])
    if not tensors:
        raise click.ClickException(
            f"{model} and {source} have no inner tensor of the same name: nothing was compared."
        )
    worst = max(tensors, key=lambda tensor: tensor["relative_error"] or 0.0)
    content = {
        **record(
            "layers",
            [case_toml, samples, model, source, logits, reference, threshold],
            (*part(variant, "layers").PACKAGES, "polygraphy", "numpy"),
            variant,
        ),
        "source": BY_NAME[variant].source,
        "samples": rows,
        "tensors": tensors,
        "largest_error": worst["name"],
        "first_jump": first_jump(tensors),
        "marked_minus_unmarked_max": unmarked,
    }
    write_json(out, content)
    error = worst["relative_error"]
    shown = "not finite" if error is None else f"{error:.2g}"
    click.echo(
        f"{variant}: {len(tensors)} tensors compared on {len(rows)} samples, largest relative "
        f"error {shown} at {worst['name']}"
    )


def worst_samples(logits: NDArray[Any], reference: NDArray[Any], threshold: float) -> list[int]:
    """Indices of the samples to look at: the flipped first, then the nearest to the threshold."""
    flipped = is_positive(logits, threshold) != is_positive(reference, threshold)
    order = np.lexsort((np.abs(reference - threshold), ~flipped))
    return [int(i) for i in order[:SAMPLES]]


def compare_models(
    case: Case, data: Samples, rows: list[int], source: Path, model: Path, variant: Variant
) -> tuple[list[dict[str, Any]], float | None]:
    """(what each tensor that both graphs have differs by, in graph order; marked - unmarked).

    relative_error: |variant - source| / |source| over all samples, Euclidean norms, None where the
    variant's tensor is not finite; magnitude: the largest absolute value in the source.
    """
    import onnx

    quiet()
    graph = onnx.load(source, load_external_data=False).graph
    sums: dict[str, list[float]] = {}
    unmarked = 0.0
    opened = part(variant.name, "layers").open_layers(case, variant, source, model, BATCH)
    exact = marked(source)
    with opened as (found, served, size):
        for start in range(0, len(rows), size):
            batch = data.rows(rows[start : start + size])
            inner = found(batch)
            add(sums, exact(batch), inner)
            for name, array in served(batch).items():
                difference = np.abs(array.astype(np.float64) - inner[name]).max()
                unmarked = float(np.maximum(unmarked, difference))  # NaN stays NaN
    return describe(graph, sums), unmarked if np.isfinite(unmarked) else None


def add(sums: dict[str, list[float]], exact: Outputs, found: Outputs) -> None:
    """Add a batch to `sums`: name -> [squared difference, squared source, largest of source]."""
    for name in exact.keys() & found.keys():
        a = exact[name].astype(np.float64)
        if exact[name].dtype.kind != "f" or a.shape != found[name].shape:
            continue
        b = found[name].astype(np.float64)
        total = sums.setdefault(name, [0.0, 0.0, 0.0])
        total[0] += float(((a - b) ** 2).sum()) if np.isfinite(b).all() else np.inf
        total[1] += float((a**2).sum())
        total[2] = max(total[2], float(np.abs(a).max(initial=0.0)))


def describe(graph: Any, sums: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One entry for each tensor in `sums`, in graph order, with the node that makes it."""
    tensors = []
    for node in graph.node:
        for name in node.output:
            if name not in sums:
                continue
            difference, size, magnitude = sums[name]
            error = float(np.sqrt(difference / size)) if size else float(np.sqrt(difference))
            tensors.append(
                {
                    "name": name,
                    "node": node.name,
                    "operator": node.op_type,
                    "inputs": [one for one in node.input if one in sums],
                    "relative_error": error if np.isfinite(error) else None,
                    "magnitude": magnitude,
                }
            )
    return tensors


def first_jump(tensors: list[dict[str, Any]]) -> str | None:
    """The first tensor whose error is far beyond that of what its node was given."""
    errors = {one["name"]: one["relative_error"] for one in tensors}
    for one in tensors:
        given = max((errors[name] or 0.0 for name in one["inputs"]), default=0.0)
        error = one["relative_error"]
        if error is None or (error > NOTICEABLE and error > JUMP * given):
            return str(one["name"])
    return None


if __name__ == "__main__":
    main()
