"""Convert the float32 ONNX to low precision, with the nodes that a repair keeps left in float32.

Reads   case.toml, samples.json, <variant>_mixed.repair.json, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.convert_mixed data/digits/case.toml --samples results/digits/samples.json \
            --repair results/digits/onnx_int8_mixed.repair.json \
            --source model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_int8_mixed/1/model.onnx
Prints  onnx_int8_mixed: 1 of 5 nodes kept in float32, runs at batch 1, 31, 32
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.files import read_json
from scripts.graphs.mixed import converter
from scripts.graphs.save import save
from scripts.graphs.session import trial_sizes
from scripts.step import step
from scripts.variants import BY_NAME


@step(__doc__, "case", "samples", "source", "out")
@click.option("--repair", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, repair: Path, source: Path, out: Path) -> None:
    import onnx

    case, found = read_case(case_toml), read_json(repair)
    if not found["made"]:
        raise click.ClickException(f"{repair} says of {found['variant']}: {found['reason']}.")
    data = Samples(case, samples)
    nodes, convert = converter(BY_NAME[found["repairs"]].precision, onnx.load(source), case, data)
    save(convert(frozenset(found["kept"])), out, case, data.some(case.max_batch))
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"{found['variant']}: {len(found['kept'])} of {len(nodes)} nodes kept in float32, "
        f"runs at batch {sizes}"
    )


if __name__ == "__main__":
    main()
