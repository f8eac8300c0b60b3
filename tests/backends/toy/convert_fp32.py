"""Give the ONNX file another name in its metadata, so that it is a file of this backend.

Reads   case.toml, the float32 model.onnx
Writes  model.onnx
Runs    on the CPU
Usage   python3 -m scripts.backends.toy.convert_fp32 data/digits/case.toml \
            --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_toy_fp32/1/model.onnx
Prints  toy_fp32: 12 nodes
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.graphs.save import save
from scripts.step import step


@step(__doc__, "case", "samples", "model", "out")
def main(case_toml: Path, samples: Path, model: Path, out: Path) -> None:
    import onnx

    case = read_case(case_toml)
    converted = onnx.load(model)
    converted.metadata_props.add(key="for", value="toy")
    save(converted, out, case, Samples(case, samples).some(case.max_batch))
    click.echo(f"toy_fp32: {len(converted.graph.node)} nodes")


if __name__ == "__main__":
    main()
