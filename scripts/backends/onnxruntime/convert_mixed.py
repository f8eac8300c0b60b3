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

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scripts.backends.onnxruntime.convert_fp32 import save
from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples
from scripts.files import read_json
from scripts.graphs.session import trial_sizes
from scripts.variants import BY_NAME

if TYPE_CHECKING:
    import onnx

Convert = Callable[[frozenset[str]], "onnx.ModelProto"]


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--samples", required=True, type=click.Path(path_type=Path))
@click.option("--repair", required=True, type=click.Path(path_type=Path))
@click.option("--source", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, samples: Path, repair: Path, source: Path, out: Path) -> None:
    import onnx

    case, found = read_case(case_toml), read_json(repair)
    if not found["made"]:
        raise click.ClickException(f"{repair} says of {found['variant']}: {found['reason']}.")
    data = Samples(case, samples)
    nodes, convert = converter(found["repairs"], onnx.load(source), case, data)
    save(convert(frozenset(found["kept"])), out, case, data.some(case.max_batch))
    sizes = ", ".join(str(size) for size in trial_sizes(case.max_batch))
    click.echo(
        f"{found['variant']}: {len(found['kept'])} of {len(nodes)} nodes kept in float32, "
        f"runs at batch {sizes}"
    )


def converter(
    variant: str, source: "onnx.ModelProto", case: Case, data: Samples
) -> tuple[list[str], Convert]:
    """(the nodes that `variant` has in low precision, in graph order; how to convert with some kept).

    What needs doing once, calibration among it, is done here.
    """
    if BY_NAME[variant].precision == "int8":
        from scripts.backends.onnxruntime.convert_int8 import quantiser

        ranges, quantised = quantiser(source, case, data)
        return list(ranges.nodes), quantised
    from scripts.backends.onnxruntime.convert_fp16 import candidates, convert, prepare

    prepared = prepare(source)
    return candidates(prepared), lambda keep: convert(prepared, keep)


if __name__ == "__main__":
    main()
