"""Prove from an ONNX file itself what number format it computes in.

Reads   model.onnx, and for float16 onnx_fp32.range.json
Writes  <variant>.precision.json: the share of nodes and of weight bytes in low precision; what overflows
Runs    on the CPU
Usage   python3 -m scripts.backends.onnxruntime.prove data/digits/case.toml --variant onnx_fp16 \
            --model model_repository/digits_onnx_fp16/1/model.onnx \
            --range results/digits/onnx_fp32.range.json --out results/digits/onnx_fp16.precision.json
Prints  onnx_fp16: 100% of the nodes and 100% of the weight bytes are float16
"""

from pathlib import Path
from typing import Any

import click

from scripts.files import read_json, write_json
from scripts.graphs.shares import check, metrics, shares, words
from scripts.step import record, step
from scripts.variants import BY_NAME


@step(__doc__, "variant", "model", "out")
@click.option(
    "--range", "span", type=click.Path(path_type=Path), help="<...>.range.json; float16 only."
)
def main(variant: str, model: Path, out: Path, span: Path | None = None) -> None:
    found, notes = onnx_shares(model)
    wanted = BY_NAME[variant].precision
    check(found, wanted, variant, model)
    if span is not None:
        notes |= overflows(model, read_json(span))
    used = [model] + ([span] if span else [])
    content = record("precision", used, ("onnx",), variant)
    write_json(out, content | {"metrics": metrics(found, wanted, model) | notes})
    click.echo(words(variant, found, wanted))


def overflows(model: Path, largest: dict[str, Any]) -> dict[str, Any]:
    """The tensors that are float16 in this file and pass float16's range, or half of it, in float32."""
    import onnx

    from scripts.graphs.range import LIMIT, beyond

    loaded = onnx.load(model)
    return {
        "beyond": beyond(loaded, largest, LIMIT),
        "beyond_half": beyond(loaded, largest, LIMIT / 2),
    }


def onnx_shares(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`shares` of an ONNX file, and what the conversion wrote down in it."""
    import onnx

    from scripts.graphs.fp16_passes import TINY_KEY
    from scripts.graphs.int8_graph import NOTES

    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    notes = {name: entries[name] for name in NOTES if name in entries}
    counts = {"calibration_samples": int(notes["calibration_samples"])} if notes else {}
    tiny = {"values_below_float16": int(entries.get(TINY_KEY, 0))}
    return shares(model), tiny | notes | counts


if __name__ == "__main__":
    main()
