"""Write the first sample of the test data as a request to Triton, for people to try.

Triton takes it as it is from curl, unless an input is float16, which its JSON form does not carry.

Reads   case.toml, samples.json
Writes  request.json: the body for /v2/models/<case>_verdict/infer
Runs    on the CPU
Usage   python3 -m scripts.triton.write_request data/digits/case.toml --samples results/digits/samples.json \
            --out results/digits/request.json
Prints  results/digits/request.json: sample 0 for digits_verdict
"""

import json
from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Batch, Samples
from scripts.files import writing
from scripts.step import step

DATATYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int32": "INT32",
             "int64": "INT64", "bool": "BOOL"}  # fmt: skip


@step(__doc__, "case", "samples", "out")
def main(case_toml: Path, samples: Path, out: Path) -> None:
    case = read_case(case_toml)
    body = get_body(Samples(case, samples).batch(0, 1))
    with writing(out) as temporary:
        temporary.write_text(json.dumps(body) + "\n", encoding="utf-8")
    click.echo(f"{out}: sample 0 for {case.name}_verdict")


def get_body(batch: Batch) -> dict[str, Any]:
    """The body of an inference request in Triton's JSON form."""
    return {
        "inputs": [
            {
                "name": name,
                "datatype": DATATYPES[array.dtype.name],
                "shape": list(array.shape or (1,)),
                "data": array.ravel().tolist(),
            }
            for name, array in batch.items()
        ]
    }


if __name__ == "__main__":
    main()
