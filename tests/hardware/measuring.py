"""One variant on the device: scored, scored again under other conditions, timed, and judged."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from scripts.case.read_case import Case
from scripts.data.samples import Run, load
from scripts.files import read_json, write_json, writing
from scripts.graphs.session import default_threads
from scripts.score import measure_latency
from scripts.score.repeat_scoring import conditions, repeat
from scripts.score.score_variant import score
from scripts.variants import BY_NAME, REFERENCES, part
from tests.hardware.judge import compared, complaints
from tests.hardware.subjects import Subject

Row = dict[str, Any]


def measured(subject: Subject, variant: str, tf32: bool = False) -> Row:
    """The row of a variant; `tf32`: of the reference with TF32 allowed, which is held to nothing."""
    name = variant + ("_tf32" if tf32 else "")
    with ExitStack() as stack:
        run, provider = stack.enter_context(opened(subject, variant, tf32))
        again, _ = stack.enter_context(opened(subject, variant, tf32))
        beside = None
        if name != REFERENCES["torch"].name and (
            subject.device == "cpu" or torch.cuda.is_available()
        ):
            beside, _ = stack.enter_context(opened(subject, REFERENCES["torch"].name))
        found = scored(subject, run, name) | {"provider": provider}
        found |= repeated(subject, {"loaded again": again}, run, name)
        found["latency"] = timed(subject, run, beside)
    exact = BY_NAME[variant].precision == "float32" and not tf32
    said = complaints(found, subject.device, exact, not tf32, noise(subject))
    return judged({"what": name, "state": "ok", "words": "", "figures": found}, said)


def open_variant(case: Case, variant: str, *arguments: Any, **more: Any) -> Any:
    """What opens the variant, from its backend's folder."""
    return part(variant, "open").open_variant(case, variant, *arguments, **more)


@contextmanager
def opened(subject: Subject, variant: str, tf32: bool = False) -> Iterator[tuple[Run, str]]:
    """The variant as every step of the project opens it."""
    path, threads = subject.artefact(variant), default_threads()
    with open_variant(subject.case, variant, path, subject.device, threads) as one:
        yield (allowing_tf32(one[0]), one[1]) if tf32 else one


def allowing_tf32(run: Run) -> Run:
    """The same with TF32 in matrix products and convolutions, off again after each batch."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)

    def allowed(batch: Any) -> Any:
        try:
            for place in places:
                place.allow_tf32 = True
            return run(batch)
        finally:
            for place in places:
                place.allow_tf32 = False

    return allowed


def scored(subject: Subject, run: Run, name: str) -> dict[str, Any]:
    """All samples through it, against the reference on the CPU."""
    out = subject.results / f"{name}.logits.npy"
    with writing(out) as temporary:
        score(subject.case, run, subject.data, temporary, name)
    return compared(load(out), subject.reference, subject.threshold)


def repeated(subject: Subject, more: dict[str, Run], run: Run, name: str) -> dict[str, Any]:
    """The samples again: as before, in other slots, in other batches, and as `more` has it."""
    logits = np.array(load(subject.results / f"{name}.logits.npy"))
    others = conditions(run, subject.case.max_batch) | more
    found = repeat(subject.case, subject.data, others, logits, subject.threshold, name)
    write_json(subject.results / f"{name}.repeats.json", found)
    return {
        "depends": found["samples"],
        "depends_max_absolute": found["metrics"]["deviation_max_absolute"],
        "conditions": found["conditions"],
    }


def noise(subject: Subject) -> list[int]:
    """The samples whose verdict the reference itself changes on this device; none before it ran."""
    path = subject.results / f"{REFERENCES['torch'].name}.repeats.json"
    return list(read_json(path)["samples"]) if path.exists() else []


def timed(subject: Subject, run: Run, beside: Run | None) -> dict[str, dict[str, Any]]:
    """Batch size -> median and 99th percentile; `times_as_fast` as the reference run in turn with it.

    Each call copies the batch to the device and the outputs back, which waits for the GPU.
    """
    found = {}
    for size in sorted({1, subject.case.max_batch}):
        runs = {"variant": run} | ({"reference": beside} if beside else {})
        seconds = measure_latency.interleave(runs, subject.data.some(size))
        p50, p99 = (float(p) * 1e3 for p in np.percentile(seconds["variant"], [50, 99]))
        row = {"latency_p50_ms": p50, "latency_p99_ms": p99, "rounds": len(seconds["variant"])}
        if beside:
            row["times_as_fast"] = float(np.median(seconds["reference"])) * 1e3 / p50
        found[str(size)] = row
    return found


def judged(row: Row, said: list[str]) -> Row:
    """The row, failed where anything was said against it."""
    if not said:
        return row
    words = [row["words"]] if row["state"] == "failed" else []
    return row | {"state": "failed", "words": "; ".join(words + said)}
