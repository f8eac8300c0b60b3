"""The largest magnitude of every float32 tensor inside the ONNX model, over the whole test set.

float16 holds up to 65504. A GPU turns what is larger into infinity, while a CPU, on which ONNX Runtime
computes float16 nodes in float32, hides it. So the float32 model is run with its tensors reduced to
their largest and smallest value inside the graph. What overflows within one node, such as a sum of
squares, is not seen.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  onnx_fp32.range.json
Runs    on the CPU, or with --device cuda on a GPU
Usage   python3 -m scripts.backends.onnxruntime.check_range data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx --mode local --device cpu \
            --out results/digits/onnx_fp32.range.json
Prints  onnx_fp32: 11 tensors of 899 samples, the largest magnitude 23.4 at relu_1; none beyond half of float16's range
"""

from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.case.read_case import read_case
from scripts.data.samples import Samples
from scripts.files import write_json
from scripts.graphs.range import LIMIT, measure, names_beyond, opened
from scripts.step import record, step


@step(__doc__, "case", "samples", "model", "mode", "device", "out")
def main(case_toml: Path, samples: Path, model: Path, mode: str, device: str, out: Path) -> None:
    case = read_case(case_toml)
    data = Samples(case, samples)
    with opened(model, device) as (run, watched, unseen):
        tensors = measure(run, watched, data, case.max_batch)
    content = {
        **record(
            "range",
            [case.path, samples, model],
            ("onnxruntime", "onnx", "numpy"),
            "onnx_fp32",
            mode,
            device,
        ),
        "samples": len(data),
        "limit": LIMIT,
        "tensors": tensors,
        "unseen": unseen,
        "beyond_half": names_beyond(tensors, LIMIT / 2),
        "beyond": names_beyond(tensors, LIMIT),
    }
    write_json(out, content)
    click.echo(f"onnx_fp32: {words(tensors, len(data), unseen)}")


def words(tensors: list[dict[str, Any]], samples: int, unseen: list[str]) -> str:
    """The finding in one line."""
    worst = max(tensors, key=lambda one: np.inf if one["largest"] is None else one["largest"])
    value = "not finite" if worst["largest"] is None else f"{worst['largest']:.3g}"
    text = f"{len(tensors)} tensors of {samples} samples, the largest magnitude {value} at {worst['name']}; "
    for limit, name in ((LIMIT, "float16's range"), (LIMIT / 2, "half of float16's range")):
        if found := names_beyond(tensors, limit):
            text += f"{len(found)} beyond {name}, the first {found[0]}"
            break
    else:
        text += "none beyond half of float16's range"
    return text + (f"; {len(unseen)} not seen, the first {unseen[0]}" if unseen else "")


if __name__ == "__main__":
    main()
