"""The rows of the benchmark that need a running Triton: what serving costs, and what asking can."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from scripts.case import Case
from scripts.measure_served import measure, measure_ceiling
from scripts.onnx_session import default_threads, open_session, run_session
from scripts.samples import Samples, load
from scripts.score_variant import score
from scripts.triton_server import running_server
from scripts.write_config import get_config, onnx_tensors

ROUNDS = 30


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
    config = get_config(name, "onnxruntime", onnx_tensors(model), case.max_batch, False)
    (place / "config.pbtxt").write_text(config, encoding="utf-8")
    session = open_session(model, "cpu", default_threads())
    logits = folder / "served.logits.npy"
    score(case, lambda batch: run_session(session, batch), data, logits, "bench")
    with running_server(folder / "repository", [name], folder / "bench.log") as server:
        found = measure(server, name, case, data, load(logits), float(np.median(load(logits))))
    best = max(found["levels"], key=lambda level: level["throughput_per_s"])
    size = max(1, round(best["statistics"]["average_batch"]))
    batch = data.some(size)
    run_session(session, batch)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        run_session(session, batch)
    alone = ROUNDS * size / (time.perf_counter() - start)
    ceiling = measure_ceiling(folder / "ceiling")["throughput_per_s"]
    served = best["throughput_per_s"]
    figures = {"served_per_s": served, "in_process_per_s": alone, "ceiling_per_s": ceiling,
               "in_flight": best["concurrency"], "batch": size}  # fmt: skip
    return [
        ("throughput in Triton over in process, the same batch, 224x224", served / alone, figures),
        ("requests per second that can be asked over those served", ceiling / served, figures),
    ]
