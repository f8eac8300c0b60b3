"""Prove from the file what number format it computes in.

Reads   model.onnx
Writes  <variant>.precision.json
Runs    on the CPU
Usage   python3 -m scripts.backends.toy.prove data/digits/case.toml --variant toy_fp32 \
            --model model_repository/digits_toy_fp32/1/model.onnx \
            --out results/digits/toy_fp32.precision.json
Prints  toy_fp32: 0% of the nodes and 0% of the weight bytes are float16
"""

from pathlib import Path

import click

from scripts.files import write_json
from scripts.graphs.shares import check, metrics, shares, words
from scripts.step import record, step
from scripts.variants import BY_NAME


@step(__doc__, "variant", "model", "out")
def main(variant: str, model: Path, out: Path) -> None:
    import onnx

    found, wanted = shares(onnx.load(model)), BY_NAME[variant].precision
    check(found, wanted, variant, model)
    content = record("precision", [model], ("onnx",), variant)
    proven = metrics(found, wanted, model) | {"values_below_float16": 0}
    write_json(out, content | {"metrics": proven})
    click.echo(words(variant, found, wanted))


if __name__ == "__main__":
    main()
