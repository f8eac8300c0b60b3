"""The rows of the benchmark that need a running Triton: what serving costs, and what asking can."""

import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.case.read_case import Case
from scripts.data.samples import Samples, load
from scripts.graphs.ends import onnx_ends
from scripts.graphs.session import default_threads, open_session, run_session
from scripts.score.score_variant import score
from scripts.triton.client import decode, encode, read_model
from scripts.triton.measure_served import POOL, best, climb, measure
from scripts.triton.model_config import write_text
from scripts.triton.server import running_server
from scripts.triton.write_config import get_config

ROUNDS = 30
IDENTITY = """\
name: "identity"
backend: "python"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
IDENTITY_MODEL = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in arrays]
"""


def measured(
    case: Case, data: Samples, model: Path, folder: Path
) -> list[tuple[str, float, dict[str, Any]]]:
    """(what, ratio, figures) for a model served with the local mode's Triton, at its best concurrency.

    `model` is its float32 ONNX file; what is made lies in `folder`.
    """
    name = f"{case.name}_onnx_fp32"
    place = folder / "repository" / name
    (place / "1").mkdir(parents=True)
    (place / "1" / "model.onnx").write_bytes(model.read_bytes())
    config = get_config(name, "onnx_fp32", onnx_ends(model), case.max_batch, False)
    write_text(place / "config.pbtxt", config, {})
    session = open_session(model, "cpu", default_threads())
    logits = folder / "served.logits.npy"
    score(case, lambda batch: run_session(session, batch), data, logits, "bench")
    with running_server(folder / "repository", [name], folder / "bench.log") as server:
        found = measure(server, name, case, data, load(logits), float(np.median(load(logits))))
    top = max(found["levels"], key=lambda level: level["throughput_per_s"])
    size = max(1, round(top["statistics"]["average_batch"]))
    batch = data.some(size)
    run_session(session, batch)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        run_session(session, batch)
    alone = ROUNDS * size / (time.perf_counter() - start)
    ceiling = measure_ceiling(folder / "ceiling")["throughput_per_s"]
    served = top["throughput_per_s"]
    figures = {"served_per_s": served, "in_process_per_s": alone, "ceiling_per_s": ceiling,
               "in_flight": top["concurrency"], "batch": size}  # fmt: skip
    return [
        ("throughput in Triton over in process, the same batch, 224x224", served / alone, figures),
        ("requests per second that can be asked over those served", ceiling / served, figures),
    ]


def measure_ceiling(folder: Path) -> dict[str, Any]:
    """How many requests per second this module can make: a model that gives back what it gets.

    `folder` is for its repository. Raises click.ClickException when an answer is another's.
    """
    (folder / "identity" / "1").mkdir(parents=True)
    (folder / "identity" / "config.pbtxt").write_text(IDENTITY, encoding="utf-8")
    (folder / "identity" / "1" / "model.py").write_text(IDENTITY_MODEL, encoding="utf-8")
    levels = []
    log = folder / "identity.log"
    with running_server(folder, ["identity"], log, at_once=True) as server:
        model = read_model(server, "identity")
        numbers = np.arange(POOL, dtype=np.float32).reshape(-1, 1)
        requests = [encode(model, {"x": numbers[i : i + 1]}) for i in range(POOL)]
        for answers, level in climb(server, model, requests):
            if any(decode(model, one.content, 1)[0, 0] != one.place for one in answers):
                raise click.ClickException("The identity model gave somebody else's answer.")
            levels.append(level)
    return best(levels) | {"levels": levels}
