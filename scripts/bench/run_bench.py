"""Measure Verdict's own speed and memory, as ratios within one run on one machine.

Reads   data/digits
Writes  bench.json
Runs    on the CPU, alone: nothing else should load the machine
Usage   python3 -m scripts.bench.run_bench --out results/bench.json     (or: make bench)
Prints  a table: what, measured, wanted
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np

from scripts.backends.onnxruntime.convert_fp32 import export
from scripts.bench import decision as bench_decision
from scripts.bench import make_all
from scripts.bench import repair as bench_repair
from scripts.bench.given import PEAK, added_memory, logits, run_python, sklearn_threshold
from scripts.bench.served import measured
from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples
from scripts.families.torch.model import load_model
from scripts.files import versions, write_json
from scripts.graphs.save import save
from scripts.graphs.session import default_threads, open_session, run_session
from scripts.score.score_variant import score
from scripts.verdicts.thresholds import choose_threshold, is_positive, retune

ROUNDS = 15
PHOTOS = 256
TIMES = 50
SETUP = """
from fractions import Fraction
import sklearn.metrics
from scripts.bench.given import logits, sklearn_threshold
from scripts.verdicts.thresholds import choose_threshold, retune
z, y = logits()
"""

TOML = """
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 32
[[inputs]]
name = "image"
shape = [3, 224, 224]
dtype = "float32"
file = "inputs.npy"
[labels]
file = "labels.npy"
"""
MODEL = """
from torch import nn
def build():
    def block(a, b):
        return [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), *block(64, 64),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
"""


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        decisions = bench_decision.rows(Path(folder) / "decision")
        photos = make_case(Path(folder) / "photos", PHOTOS)
        rows = [
            throughput("digits", repeated(Path(folder) / "digits"), Path(folder), 0.9),
            throughput("224x224 images", photos, Path(folder), 0.95),
            *served(photos, Path(folder)),
            memory(Path(folder)),
            *thresholds(),
            *repairs(),
            *whole(Path(folder) / "project"),
            *(row(*found, **more) for found, more in decisions),
        ]
    write_json(out, {"step": "bench", "threads": default_threads(), "rows": rows,
                     "versions": versions("numpy", "onnxruntime", "scikit-learn")})  # fmt: skip
    for one in rows:
        reached = "reached" if one["reached"] else "MISSED"
        click.echo(f"{one['what']:<62} {one['measured']:>8.3f}  {one['wanted']:>9}  {reached}")


def row(what: str, measured: float, relation: str, bound: float, **more: Any) -> dict[str, Any]:
    """One line of the table: a ratio, and whether it lies on the wanted side of its bound."""
    reached = measured >= bound if relation == ">=" else measured <= bound
    return {"what": what, "measured": measured, "wanted": f"{relation} {bound:g}",
            "reached": reached, **more}  # fmt: skip


def make_case(folder: Path, count: int) -> Case:
    """A case of photographs made of noise, and a network with random weights."""
    import torch

    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(TOML, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(MODEL, scope)  # the text above
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), folder / "weights.pth")
    array = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        folder / "inputs.npy", mode="w+", dtype=np.float32, shape=(count, 3, 224, 224)
    )
    random = np.random.default_rng(0)
    for i in range(count):
        array[i] = random.random((3, 224, 224), np.float32)
    array.flush()
    np.save(folder / "labels.npy", np.arange(count, dtype=np.uint8) % 2)
    return read_case(folder / "case.toml")


def repeated(folder: Path) -> Case:
    """The bundled case with its test data written many times over."""
    shutil.copytree("data/digits", folder)
    for name in ("inputs.npy", "labels.npy"):
        array = np.load(folder / name)
        np.save(folder / name, np.concatenate([array] * TIMES))
    return read_case(folder / "case.toml")


def read(case: Case, folder: Path) -> Samples:
    """Run the step that reads the samples of a case, and open them."""
    index = folder / f"{case.name}.samples" / "samples.json"
    command = [
        sys.executable,
        "-m",
        "scripts.data.read_samples",
        str(case.path),
        "--out",
        str(index),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return Samples(case, index)


def throughput(what: str, case: Case, folder: Path, bound: float) -> dict[str, Any]:
    """Our runner over a bare loop of session.run on the same mapped data and batch size."""
    data = read(case, folder)
    path = folder / f"{case.name}.onnx"
    batch = data.some(max(3, case.max_batch))
    small = {name: array[:3] for name, array in batch.items()}
    save(export(case, load_model(case), small), path, case, batch)
    session = open_session(path, "cpu", default_threads())
    mapped = {one.name: np.load(str(one.file), mmap_mode="r") for one in case.inputs}
    n, size = len(data), case.max_batch

    def bare() -> None:
        for start in range(0, n, size):
            session.run(None, {name: array[start : start + size] for name, array in mapped.items()})

    def ours() -> None:
        score(case, lambda batch: run_session(session, batch), data, folder / "z.npy", "bench")

    slow, fast = alternate([bare, ours])
    ratio = float(np.median([a / b for a, b in zip(slow, fast, strict=True)]))
    return row(f"throughput of scoring over bare session.run, {what}", ratio, ">=", bound,
               samples_per_s=n / float(np.median(fast)))  # fmt: skip


def served(case: Case, folder: Path) -> list[dict[str, Any]]:
    """What the local mode's Triton makes of the throughput, and whether we can ask fast enough."""
    found = measured(case, read(case, folder), folder / f"{case.name}.onnx", folder / "triton")
    bounds = (0.3, 2.0)
    return [
        row(what, ratio, ">=", bound, **figures)
        for (what, ratio, figures), bound in zip(found, bounds, strict=True)
    ]


def alternate(runs: list[Callable[[], Any]], rounds: int = ROUNDS) -> list[list[float]]:
    """Seconds of each run in each round, one after the other, so that drift hits all alike."""
    for run in runs:
        run()
    taken: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds):
        order = range(len(runs)) if turn % 2 else reversed(range(len(runs)))
        for k in order:
            start = time.perf_counter()
            runs[k]()
            taken[k].append(time.perf_counter() - start)
    return taken


def memory(folder: Path) -> dict[str, Any]:
    """Peak memory of scoring ten times the samples over that of scoring them once."""
    peaks = []
    for count in (PHOTOS, 10 * PHOTOS):
        case = make_case(folder / f"memory{count}", count)
        read(case, folder)
        index = folder / f"{case.name}.samples" / "samples.json"
        arguments = [str(case.path), "--variant", "torch_fp32", "--samples", str(index),
                     "--model", str(case.weights), "--mode", "local", "--device", "cpu",
                     "--out", str(folder / f"{case.name}.logits.npy")]  # fmt: skip
        call = f"from scripts.score.score_variant import main; main({arguments!r}, standalone_mode=False)"
        peaks.append(int(run_python(PEAK + call + "\nprint(kib('VmHWM') * 1024)")[-1]))
    return row("peak memory of scoring 10x the samples over 1x", peaks[1] / peaks[0], "<=", 1.1,
               peak_bytes=peaks)  # fmt: skip


def thresholds() -> list[dict[str, Any]]:
    """Choosing and re-tuning on ten million logits, over scikit-learn's curve on the same array."""
    z, y = logits()
    chosen = choose_threshold(z, y, Fraction(9, 10))
    verdicts = is_positive(z, chosen.logit)
    noisy = z + np.random.default_rng(1).normal(0, 1e-3, len(z)).astype(np.float32)
    runs: list[Callable[[], Any]] = [
        lambda: sklearn_threshold(z, y),
        lambda: choose_threshold(z, y, Fraction(9, 10)),
        lambda: retune(noisy, verdicts, chosen.logit, 1e-6),
    ]
    theirs, ours, tuned = (float(np.median(times)) for times in alternate(runs, 5))
    if sklearn_threshold(z, y) != np.float32(chosen.gap_high):
        raise ValueError(f"{sklearn_threshold(z, y)} and {chosen.gap_high}: not the same choice")
    calls = ("sklearn_threshold(z, y)", "choose_threshold(z, y, Fraction(9, 10))",
             "retune(z, z > 0, 0.0, 1e-6)")  # fmt: skip
    peak = [added_memory(SETUP, call) for call in calls]
    return [
        row("time of scikit-learn's curve over choosing, 10 million", theirs / ours, ">=", 10,
            seconds=[theirs, ours]),
        row("time of scikit-learn's curve over re-tuning, 10 million", theirs / tuned, ">=", 10,
            seconds=[theirs, tuned]),
        row("memory of choosing over scikit-learn's curve", peak[1] / peak[0], "<=", 1.0,
            peak_bytes=peak[:2]),
        row("memory of re-tuning over scikit-learn's curve", peak[2] / peak[0], "<=", 1.0,
            peak_bytes=peak[::2]),
    ]  # fmt: skip


def repairs() -> list[dict[str, Any]]:
    """The search for nodes to keep in float32 against onnxconverter-common's: tries and time."""
    found = bench_repair.measured()
    ours, theirs = found["ours"], found["theirs"]
    return [
        row(f"{what} of our search over onnxconverter-common's, {found['nodes']} nodes",
            ours[key] / theirs[key], "<=", 1.0, ours=ours, theirs=theirs)
        for what, key in (("tries", "runs"), ("time", "seconds"))
    ]  # fmt: skip


def whole(folder: Path) -> list[dict[str, Any]]:
    """`make all` of the bundled case, and the second one, which has nothing to do."""
    found = make_all.measured(folder)
    steps = found["steps"]
    return [
        row(f"make all over the sum of its {len(steps)} slowest steps alone",
            found["whole"] / sum(steps.values()), "<=", 1.6, seconds=found["whole"], steps=steps),
        row("a second make all, which does nothing, in ms", found["again"] * 1e3, "<=", 1000),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
