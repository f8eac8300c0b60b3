"""Export the PyTorch model to ONNX in float32, with a dynamic batch, and try it.

Reads   case.toml, the weights, samples.json
Writes  model.onnx (and model.onnx.data from 2 GB of weights on)
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.convert_fp32 data/digits/case.toml --samples results/digits/samples.json \
            --out model_repository/digits_onnx_fp32/1/model.onnx
Prints  onnx_fp32: opset 18, 12 nodes, 0.1 MB, runs at batch 1, 31, 32
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples
from scripts.families.torch.model import exact_float32, load_model
from scripts.graphs.save import save
from scripts.graphs.session import trial_sizes
from scripts.step import step

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18  # what torch's exporter writes natively; every ONNX Runtime since 1.14 loads it
IR_VERSION = 10  # the newest that ONNX Runtime 1.19 (Triton 24.10) loads
OUTPUT = "output"
ADVICE = (
    "If the batch size is the cause, take it from x.shape[0] instead of a fixed number; if an "
    "`if` on a tensor's value is, write it with torch.where; if an operator is not supported, "
    "replace it in the model's forward()."
)


@step(__doc__, "case", "samples", "out")
def main(case_toml: Path, samples: Path, out: Path) -> None:
    case = read_case(case_toml)
    exact_float32()
    batch = Samples(case, samples).some(max(3, case.max_batch))
    model = export(case, load_model(case), {name: array[:3] for name, array in batch.items()})
    save(model, out, case, batch)
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_fp32: opset {OPSET}, {len(model.graph.node)} nodes, "
        f"{out.stat().st_size / 1e6:.2g} MB, runs at batch {sizes}"
    )


def export(case: Case, model: "torch.nn.Module", batch: Batch) -> "onnx.ModelProto":
    """The model as ONNX: inputs named as in case.toml, one output, the first axis dynamic.

    Raises click.ClickException with torch's own words where the export fails.
    """
    import numpy as np
    import torch

    tensors = tuple(torch.from_numpy(np.array(array)) for array in batch.values())
    axis = torch.export.Dim("batch")
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                tensors,
                dynamo=True,
                opset_version=OPSET,
                input_names=[one.name for one in case.inputs],
                output_names=[OUTPUT],
                dynamic_shapes=(tuple({0: axis} for _ in tensors),),
                verbose=False,
            )
    except Exception as error:  # torch raises many kinds; its words are kept
        raise click.ClickException(
            f"torch.onnx.export failed for {case.path}: {_words(error)}\n{ADVICE}"
        ) from None
    assert program is not None
    exported = tidy(program.model_proto)
    for value in (*exported.graph.input, *exported.graph.output):
        first = value.type.tensor_type.shape.dim[:1]
        if not first or first[0].dim_value:
            raise click.ClickException(
                f"{case.path}: the export fixes the first axis of {value.name!r} at "
                f"{first[0].dim_value if first else 'nothing'}; it must be the batch. {ADVICE}"
            )
    return exported


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch logs, warns and prints on the way; what it raises says it all."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def tidy(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Without the exporter's notes: stack traces with this machine's paths, in every node."""
    from scripts.graphs.fp16_passes import graphs

    model.ir_version = IR_VERSION
    holders: list[Any] = [model]
    for graph in graphs(model.graph):
        holders += [graph, *graph.node, *graph.value_info, *graph.input, *graph.output,
                    *graph.initializer]  # fmt: skip
    for holder in holders:
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    return model


def _words(error: BaseException) -> str:
    """The innermost cause, without torch's own report around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines[:4])


if __name__ == "__main__":
    main()
