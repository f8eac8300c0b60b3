"""Check the PyTorch model before anything is converted from it.

Reads   case.toml, the weights, samples.json
Writes  torch_fp32.check.json
Runs    on the CPU
Usage   python3 -m scripts.families.torch.check_model data/digits/case.toml --samples results/digits/samples.json \
            --out results/digits/torch_fp32.check.json
Prints  torch_fp32: the model is deterministic and independent of the batch
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples
from scripts.families.torch.model import exact_float32, load_model, run_torch
from scripts.files import write_json
from scripts.step import record, step
from scripts.verdicts.heads import log_odds

if TYPE_CHECKING:
    import torch

# Sums in another order: what one sample's logit may differ by between batches, relative to 1 + |z|.
BATCH_TOLERANCE = 1e-3


@step(__doc__, "case", "samples", "out")
def main(case_toml: Path, samples: Path, out: Path) -> None:
    case = read_case(case_toml)
    exact_float32()
    model = load_model(case)
    batch = Samples(case, samples).some(max(case.max_batch, 2))
    deviation = check(case, model, batch)
    shape = list(_run(case, model, {name: array[:1] for name, array in batch.items()}).shape[1:])
    content = {
        **record("check", [case.path, case.weights, samples], ("torch", "numpy"), "torch_fp32"),
        "output_shape": shape,
        "metrics": {"batch_deviation_max": deviation},
    }
    write_json(out, content)
    click.echo("torch_fp32: the model is deterministic and independent of the batch")


def check(case: Case, model: "torch.nn.Module", batch: Batch) -> float:
    """All checks on one batch; the largest difference of a logit alone and in the batch.

    Raises click.ClickException with one sentence on the first failure.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = _run(case, model, batch)
    _check_output(case, first, len(first_array(batch)))
    again = _run(case, model, batch)
    changed = [
        name.removeprefix("model.")
        for name, value in model.state_dict().items()
        if not _same(value, before[name])
    ]
    if changed:
        _refuse(case, f"running the model changes {changed[0]}: a batch norm (or other state) is "
                      "still in training mode after eval()")  # fmt: skip
    if not np.array_equal(first, again, equal_nan=True):
        _refuse(case, "two runs of the same batch differ: a dropout or other random part is still "
                      "active after eval()")  # fmt: skip
    alone = _run(case, model, {name: array[:1] for name, array in batch.items()})
    if alone.shape[:1] != (1,) or alone.ndim != first.ndim:
        _refuse(case, f"for a batch of one the model returned the shape {alone.shape}, and "
                      f"{(1, *first.shape[1:])} is needed: it loses the batch axis (a squeeze() "
                      "without a dimension is the usual cause)")  # fmt: skip
    worst = 0.0
    together = _logits(case, first)
    for i in range(min(4, len(together))):
        one = _run(case, model, {name: array[i : i + 1] for name, array in batch.items()})
        worst = max(worst, abs(float(_logits(case, one)[0] - together[i])))
        if worst > BATCH_TOLERANCE * (1 + abs(together[i])):
            _refuse(case, f"the logit of a sample is {_logits(case, one)[0]:.6g} alone and "
                          f"{together[i]:.6g} in a batch of {len(together)}: the model mixes the "
                          "samples of a batch (a batch norm in training mode?)")  # fmt: skip
    return worst


def _same(value: "torch.Tensor", before: "torch.Tensor") -> bool:
    """Equal in every element, NaN being equal to NaN."""
    return bool(((value == before) | ((value != value) & (before != before))).all())


def first_array(batch: Batch) -> NDArray[Any]:
    """Any input of the batch: its first axis is the batch."""
    return next(iter(batch.values()))


def _run(case: Case, model: "torch.nn.Module", batch: Batch) -> NDArray[Any]:
    size = len(first_array(batch))
    try:
        return run_torch(model, batch, "cpu")
    except click.ClickException:
        raise
    except Exception as error:  # whatever the user's model raises: its words are kept
        shapes = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in batch.items())
        raise click.ClickException(
            f"{case.path}: the model failed on a batch of {size} ({shapes}): "
            f"{type(error).__name__}: {error}"
        ) from None


def _check_output(case: Case, output: NDArray[Any], size: int) -> None:
    if output.dtype != np.float32:
        _refuse(case, f"the output has the dtype {output.dtype}, and float32 is needed")
    if output.shape[:1] != (size,):
        _refuse(case, f"for a batch of {size} the output has the shape {output.shape}: the first "
                      "axis must be the batch, one row per sample")  # fmt: skip
    if not np.isfinite(output).all():
        row = int(np.argmax(~np.isfinite(output).reshape(size, -1).all(axis=1)))
        _refuse(case, f"the output holds NaN or infinity, for sample {row} of a trial batch")
    _logits(case, output)


def _logits(case: Case, output: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return log_odds(output, case.head, case.positive_class)
    except ValueError as error:
        raise click.ClickException(f"{case.path}: {error}. Set head in [model].") from None


def _refuse(case: Case, what: str) -> None:
    raise click.ClickException(f"{case.path}: {what}. Correct the model ({case.factory}).")


if __name__ == "__main__":
    main()
