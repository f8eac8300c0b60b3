"""Convert the float32 ONNX to float16 with onnxconverter-common; inputs and outputs stay float32.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.convert_fp16 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_fp16/1/model.onnx
Prints  onnx_fp16: 14 nodes, 0.1 MB, runs at batch 1, 31, 32
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.graphs.fp16 import convert
from scripts.graphs.save import save
from scripts.graphs.session import trial_sizes
from scripts.step import step


@step(__doc__, "case", "samples", "model", "out")
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


if __name__ == "__main__":
    main()
