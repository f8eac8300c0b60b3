"""Convert the float32 ONNX to bfloat16, but for the operators that the runtime computes only in float32.

bfloat16 has the range of float32, and 8 significant bits. Inputs and outputs stay float32, and so do
numbers that come from shapes alone (an axis of 257 would become 256). Each node is put between casts,
and the casts that nothing needs are taken out again.

Reads   case.toml, samples.json, the float32 model.onnx, onnx_bf16.support.json
Writes  model.onnx
Runs    on the CPU, or on the GPU where that file was made on one
Usage   python3 -m scripts.backends.onnxruntime.convert_bf16 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --support results/digits/onnx_bf16.support.json \
            --out model_repository/digits_onnx_bf16/1/model.onnx
Prints  onnx_bf16: 3 of 8 nodes in bfloat16, opset 22, 0.05 MB, runs at batch 1, 31, 32
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.files import read_json
from scripts.graphs.bf16_forms import counts, opset_of
from scripts.graphs.bf16_passes import convert
from scripts.graphs.save import save
from scripts.graphs.session import trial_sizes
from scripts.step import step


@step(__doc__, "case", "samples", "model", "out")
@click.option("--support", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, model: Path, support: Path, out: Path) -> None:
    import onnx

    case, found = read_case(case_toml), read_json(support)
    if not found["made"]:
        raise click.ClickException(
            f"{support} says that onnx_bf16 is {found['reason']}. Go on without this variant, as "
            "`make all` does."
        )
    try:
        converted = convert(onnx.load(model), found["kept_operators"])
    except ValueError as error:
        raise click.ClickException(
            f'{model}: {error}. To go on without this variant, set skip = ["onnx_bf16"] in '
            f"{case_toml}."
        ) from None
    save(converted, out, case, Samples(case, samples).some(case.max_batch), found["device"])
    low, nodes = counts(converted)
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"onnx_bf16: {low} of {nodes} nodes in bfloat16, opset {opset_of(converted)}, "
        f"{out.stat().st_size / 1e6:.2g} MB, runs at batch {sizes}"
    )


if __name__ == "__main__":
    main()
