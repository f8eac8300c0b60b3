"""Trace the PyTorch model into TorchScript, for Triton's PyTorch backend, and try it.

Reads   case.toml, the weights, samples.json
Writes  model.pt
Runs    on the device that will run it: a trace keeps the device of tensors made inside the model
Usage   python3 -m scripts.backends.pytorch.trace_torchscript data/digits/case.toml --device cpu \
            --samples results/digits/samples.json \
            --out model_repository/digits_torchscript_fp32/1/model.pt
Prints  torchscript_fp32: 0.1 MB, same output as the model at batch 1, 31, 32
"""

import keyword
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.backends.pytorch.open import open_torchscript
from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples
from scripts.families.torch.model import exact_float32, load_model, run_torch
from scripts.files import writing
from scripts.graphs.session import trial_sizes
from scripts.step import step

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4  # of an output, relative to 1 + its magnitude: sums in another order


@step(__doc__, "case", "samples", "device", "out")
def main(case_toml: Path, samples: Path, device: str, out: Path) -> None:
    import torch

    case = read_case(case_toml)
    exact_float32()
    model = load_model(case).to(device)
    batch = Samples(case, samples).some(max(3, case.max_batch))
    traced = trace(case, model, {name: array[:3] for name, array in batch.items()}, device)
    with writing(out) as temporary:
        torch.jit.save(traced, str(temporary))
        compare(case, model, temporary, batch, device)
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"torchscript_fp32: {out.stat().st_size / 1e6:.2g} MB, same output as the model at batch "
        f"{sizes}"
    )


def trace(case: Case, model: "torch.nn.Module", batch: Batch, device: str) -> Any:
    """The model as TorchScript; forward()'s arguments are named as the inputs in case.toml.

    Triton's PyTorch backend finds inputs by those names. Raises click.ClickException with torch's
    own words where the trace fails.
    """
    import torch

    tensors = tuple(torch.from_numpy(np.array(array)).to(device) for array in batch.values())
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            return torch.jit.trace(_named(case, model), tensors, check_trace=False)
    except Exception as error:  # torch raises many kinds; its words are kept
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise click.ClickException(
            f"torch.jit.trace failed for {case.path}: {words[0]} To go on without this variant, set "
            f'skip = ["torchscript_fp32"] in {case.path}.'
        ) from None


def _named(case: Case, model: "torch.nn.Module") -> "torch.nn.Module":
    """The model behind a forward() with one named argument for each input."""
    import torch

    names = [one.name for one in case.inputs]
    taken = [name for name in names if keyword.iskeyword(name) or name == "self"]
    if taken:
        raise click.ClickException(
            f"{case.path}: the input name {taken[0]!r} cannot name an argument in TorchScript. Give "
            'it another one, or set skip = ["torchscript_fp32"].'
        )
    scope: dict[str, Any] = {}
    listed = ", ".join(names)
    exec(f"def forward(self, {listed}):\n    return self.model({listed})\n", scope)
    wrapper = type("Traced", (torch.nn.Module,), {"forward": scope["forward"]})()
    wrapper.model = model
    return wrapper.eval()


def compare(case: Case, model: "torch.nn.Module", path: Path, batch: Batch, device: str) -> None:
    """Refuse a trace whose output is not the model's at batch 1, an odd batch and the largest."""
    with open_torchscript(path, device) as run:
        for size in trial_sizes(case.max_batch):
            rows = {name: array[:size] for name, array in batch.items()}
            expected = run_torch(model, rows, device)
            try:
                found: NDArray[Any] = run(rows)
            except Exception as error:  # of the traced model; torch's words are kept
                raise click.ClickException(
                    f"The trace of {case.path} fails at batch {size}: "
                    f"{str(error).strip().splitlines()[-1]} Something in the model fixes the batch; "
                    'correct it, or set skip = ["torchscript_fp32"].'
                ) from None
            if found.shape != expected.shape or not np.allclose(
                found, expected, rtol=TOLERANCE, atol=TOLERANCE
            ):
                raise click.ClickException(
                    f"The trace of {case.path} does not give the model's output at batch {size}: an "
                    "`if` or a loop on the values or the size of a tensor, perhaps, which a trace "
                    'fixes. Write it without, or set skip = ["torchscript_fp32"].'
                )


if __name__ == "__main__":
    main()
