"""Convert the float32 ONNX to float16 with onnxconverter-common; inputs and outputs stay float32.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.convert_fp16 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_fp16/1/model.onnx
Prints  onnx_fp16: 14 nodes, 0.1 MB, runs at batch 1, 31, 32
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from scripts.case import read_case
from scripts.export_onnx import save
from scripts.onnx_session import trial_sizes
from scripts.samples import Samples

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0  # of float16
SMALLEST = 5.960464477539063e-08  # above 0 in float16


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--samples", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, model: Path, out: Path) -> None:
    import onnx

    case = read_case(case_toml)
    if model.with_name(model.name + ".data").exists():
        raise click.ClickException(
            f"{model} keeps its weights in a second file (2 GB or more), which this converter "
            'cannot take. Leave the variant out: skip = ["onnx_fp16"] in case.toml.'
        )
    try:
        converted = convert(onnx.load(model))
    except ValueError as error:
        raise click.ClickException(
            f'{model}: {error}. To go on without this variant, set skip = ["onnx_fp16"] in '
            f"{case_toml}."
        ) from None
    save(converted, out, case, Samples(case, samples).some(case.max_batch))
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_fp16: {len(converted.graph.node)} nodes, {out.stat().st_size / 1e6:.2g} MB, "
        f"runs at batch {sizes}"
    )


def convert(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The model with float16 inside. Raises ValueError for a value that float16 cannot hold."""
    import onnx
    from onnxconverter_common import float16

    from scripts import fp16_passes as passes

    blocked = {*float16.DEFAULT_OP_BLOCK_LIST, *passes.FLOAT32_ONLY}
    if any(tensor.data_type == passes.FLOAT16 for tensor in model.graph.initializer):
        raise ValueError("it holds float16 already: make the .pth model float32 throughout")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    types = passes.element_types(model.graph)
    passes.name_nodes(model.graph)
    for graph in passes.graphs(model.graph):
        passes.drop_idle_casts(graph, types)
        passes.write_constants(graph)
        passes.split_shared(graph, blocked)
    passes.separate_outputs(model.graph, blocked)
    passes.separate_captured(model.graph, blocked)
    tiny = refuse_large(model, blocked)
    original = {node.name for graph in passes.graphs(model.graph) for node in graph.node}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = float16.convert_float_to_float16(
            model,
            check_fp16_ready=False,
            min_positive_val=SMALLEST,
            max_finite_val=LARGEST,
            keep_io_types=True,
            op_block_list=list(blocked),
        )
    for warning in caught:  # of what it changed; tiny values are counted, the rest refused above
        number = _truncated(str(warning.message))
        if number is None or SMALLEST < abs(number) < LARGEST:
            raise ValueError(f"the converter warned: {warning.message}")
    passes.retype_casts(model.graph, original, blocked)
    passes.cast_statistics(model.graph)
    passes.sort_nodes(model.graph)
    del model.graph.value_info[:]  # the converter's; they no longer agree with the casts
    model.metadata_props.add(key=passes.TINY_KEY, value=str(tiny))
    return model


def refuse_large(model: "onnx.ModelProto", blocked: set[str]) -> int:
    """How many stored values are too small for float16 and become its smallest above 0.

    Raises ValueError naming the first stored value beyond float16's range.
    """
    from onnx import numpy_helper

    tiny = 0
    for name, tensor in stored_floats(model, blocked):
        values = numpy_helper.to_array(tensor)
        finite = values[np.isfinite(values)]
        if finite.size and np.abs(finite).max() > LARGEST:
            worst = finite[np.argmax(np.abs(finite))]
            advice = (
                "; a mask can be float('-inf') instead" if worst < 0 and finite.size == 1 else ""
            )
            raise ValueError(
                f"float16 cannot hold {worst:.6g}, a value of {name!r} (its largest is "
                f"{LARGEST:.0f}{advice})"
            )
        tiny += int(((values != 0) & (np.abs(values) < SMALLEST)).sum())
    return tiny


def stored_floats(
    model: "onnx.ModelProto", blocked: set[str]
) -> Iterator[tuple[str, "onnx.TensorProto"]]:
    """(name, tensor) of every float32 value in the file, except those only `blocked` nodes use."""
    from scripts import fp16_passes as passes

    for graph in passes.graphs(model.graph):
        kept = {name for node in graph.node if node.op_type in blocked for name in node.input}
        for tensor in graph.initializer:
            if tensor.data_type == passes.FLOAT and tensor.name not in kept:
                yield tensor.name, tensor
        for node in graph.node:
            for attribute in node.attribute if node.op_type not in blocked else ():
                if attribute.t.data_type == passes.FLOAT:
                    yield node.name, attribute.t


def _truncated(message: str) -> float | None:
    """The number in the converter's "the float32 number X will be truncated to Y"."""
    words = message.split()
    if words[:3] != ["the", "float32", "number"]:
        return None
    return float(words[3])


if __name__ == "__main__":
    main()
