"""Quantise the float32 ONNX to int8: static, QDQ, symmetric, weights per channel, output in float32.

Activations are calibrated on a part of the test data on which no flip is counted. They are written
as uint8 around 128, which is int8 around 0 in the form that ONNX Runtime computes without detours;
`for_tensorrt` gives the same values in the form that TensorRT takes. Branches of an If and bodies
of loops stay float32.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.convert_int8 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_int8/1/model.onnx
Prints  onnx_int8: 3 of 8 nodes quantised, calibrated on 112 samples, 0.0075 MB, runs at batch 1, 31, 32
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.graphs.int8_calibration import quantiser
from scripts.graphs.save import save
from scripts.graphs.session import trial_sizes
from scripts.step import step


@step(__doc__, "case", "samples", "model", "out")
def main(case_toml: Path, samples: Path, model: Path, out: Path) -> None:
    import onnx

    case = read_case(case_toml)
    skip = f'set skip = ["onnx_int8"] in {case_toml}.'
    if model.with_name(model.name + ".data").exists():
        raise click.ClickException(
            f"{model} keeps its weights in a second file (2 GB or more), which this converter "
            f"cannot take. To go on without this variant, {skip}"
        )
    data, source = Samples(case, samples), onnx.load(model)
    try:
        ranges, convert = quantiser(source, case, data)
        converted = convert(frozenset())
    except ValueError as error:
        raise click.ClickException(
            f"{model}: {error}. To go on without this variant, {skip}"
        ) from None
    save(converted, out, case, data.some(case.max_batch))
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_int8: {len(ranges.nodes)} of {len(source.graph.node)} nodes quantised, "
        f"calibrated on {ranges.samples} samples, {out.stat().st_size / 1e6:.2g} MB, "
        f"runs at batch {sizes}"
    )


if __name__ == "__main__":
    main()
