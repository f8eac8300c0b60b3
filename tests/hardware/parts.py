"""One part of the hardware check, as measure.py runs it: rows in JSON, one line each.

Usage   cd COPY_OF_THE_PROJECT && python3 parts.py torch resnet50 --rows FILE
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
if "make" not in sys.argv[1:2]:  # where every step sees to itself
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before PyTorch is there; see measure_latency.py

import click  # noqa: E402

from scripts.files import read_json  # noqa: E402
from scripts.graphs.session import PROVIDERS  # noqa: E402
from scripts.score import measure_latency  # noqa: E402
from scripts.score.compare_layers import compare_models, worst_samples  # noqa: E402
from scripts.variants import BY_NAME, REFERENCES, VARIANTS, Variant, part  # noqa: E402
from tests.hardware.judge import misplaced  # noqa: E402
from tests.hardware.machine import PACKAGES  # noqa: E402
from tests.hardware.make_all import make_row  # noqa: E402
from tests.hardware.measuring import Row, judged, measured  # noqa: E402
from tests.hardware.refusal import refusal_row  # noqa: E402
from tests.hardware.subjects import Subject, open_subject  # noqa: E402

Rows = Iterator[Row]


def torch_part(subject: Subject) -> Rows:
    """The reference in true float32, the same with TF32 allowed, and what else PyTorch runs."""
    yield from attempt("torch_fp32, TF32 off", lambda: measured(subject, REFERENCES["torch"].name))
    yield from attempt(
        "torch_fp32, TF32 on", lambda: measured(subject, REFERENCES["torch"].name, tf32=True)
    )
    for one in of("torchscript"):
        yield from attempt(one, lambda one=one: proven(subject, one))


def onnxruntime_part(subject: Subject) -> Rows:
    """ONNX Runtime in float32 and float16."""
    for one in of("onnxruntime"):
        yield from attempt(one, lambda one=one: onnx_row(subject, one))


def tensorrt_part(subject: Subject) -> Rows:
    """Engines from both ONNX files."""
    for one in of("tensorrt"):
        yield from attempt(one, lambda one=one: proven(subject, one))


def layers_part(subject: Subject) -> Rows:
    """Each engine against its ONNX, with every tensor marked as an output."""
    for one in of("tensorrt"):
        yield from attempt(one, lambda one=one: layers_row(subject, one))


def torch_refusal_part(subject: Subject) -> Rows:
    """With the GPU hidden the reference must end in a sentence, not on the CPU."""
    yield from attempt("the GPU hidden", lambda: refusal_row(subject, "torch", True))


def onnxruntime_refusal_part(subject: Subject) -> Rows:
    """The same of a session; where the GPU is not hidden, it must run there."""
    for what, hidden in (("the GPU hidden", True), ("alone in a process", False)):
        ask = (subject, "onnxruntime", hidden)
        yield from attempt(what, lambda ask=ask: refusal_row(*ask))


def make_part(subject: Subject) -> Rows:
    """`make all` as a user runs it."""
    yield from attempt("make all", lambda: make_row(subject.device))


PARTS: dict[str, Callable[[Subject], Rows]] = {
    "torch": torch_part,
    "onnxruntime": onnxruntime_part,
    "torch-refusal": torch_refusal_part,
    "onnxruntime-refusal": onnxruntime_refusal_part,
    "tensorrt": tensorrt_part,
    "layers": layers_part,
    "make": make_part,
}


def of(runtime: str) -> list[str]:
    """The variants in floating point that it runs, from the one list."""
    return [one.name for one in VARIANTS if one.runtime == runtime and floating(one)]


def floating(variant: Variant) -> bool:
    """Whether it is always made and computes in float32 or float16: int8 flips verdicts by design."""
    return variant.precision in ("float32", "float16") and "_mixed" not in variant.name


def proven(subject: Subject, variant: str) -> Row:
    """The row of a variant whose precision the project's own step has proven from its file."""
    path, proof = subject.artefact(variant), subject.results / f"{variant}.precision.json"
    part(variant, "prove").main.callback(
        case_toml=subject.case.path, variant=variant, samples=subject.samples, model=path, out=proof
    )
    row = measured(subject, variant)
    share = read_json(proof)["metrics"]
    row["figures"]["precision"] = share
    row["words"] = row["words"] or (
        f"{share['share_float16']:.0%} of the {share['share_of']} are float16"
    )
    return row


def onnx_row(subject: Subject, variant: str) -> Row:
    row = proven(subject, variant)
    nodes = node_providers(subject, variant)
    row["figures"]["nodes"] = nodes
    return judged(row, misplaced(nodes, subject.device))


def node_providers(subject: Subject, variant: str) -> dict[str, dict[str, int]]:
    """operator -> provider -> nodes, from ONNX Runtime's own profile of one batch."""
    import onnxruntime

    provider, settings = PROVIDERS[subject.device]
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(subject.results / "profile")
    session = onnxruntime.InferenceSession(
        str(subject.artefact(variant)), options, providers=[provider], provider_options=[settings]
    )
    session.run(None, subject.data.some(1))
    found: dict[str, dict[str, int]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        told = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in told:
            placed = found.setdefault(told["op_name"], {})
            placed[told["provider"]] = placed.get(told["provider"], 0) + 1
    return found


def layers_row(subject: Subject, variant: str) -> Row:
    source = next(one.source for one in VARIANTS if one.name == variant)
    rows = worst_samples(subject.reference, subject.reference, subject.threshold)
    tensors, unmarked = compare_models(
        subject.case, subject.data, rows, subject.artefact(str(source)), subject.artefact(variant),
        BY_NAME[variant],
    )  # fmt: skip
    errors = {one["name"]: one["relative_error"] for one in tensors}
    figures = {"tensors": len(tensors), "marked_minus_unmarked_max": unmarked}
    row = {"state": "ok", "words": "", "figures": figures}
    said = [] if tensors else ["no tensor of the same name: nothing was compared"]
    said += [f"the tensor {name} is not finite" for name, error in errors.items() if error is None]
    if not said:
        worst = max(errors, key=lambda name: errors[name])
        figures |= {"relative_error_max": errors[worst], "at": worst}
        row["words"] = (
            f"{len(tensors)} tensors, largest relative error {errors[worst]:.2g} at {worst}"
        )
    return judged(row, said)


def attempt(what: str, make: Callable[[], Row]) -> Rows:
    """The row, or one that says why there is none; the next one is tried all the same."""
    try:
        yield make() | {"what": what}
    except Exception as error:
        traceback.print_exc()
        row = {"what": what, "state": "failed", "words": "", "figures": {}}
        missing = str(getattr(error, "name", "")).replace("_", "-")
        if isinstance(error, ModuleNotFoundError) and missing in PACKAGES:
            yield row | {"state": "not run", "words": f"needs {missing}"}
        else:
            said = error.message if isinstance(error, click.ClickException) else repr(error)
            yield row | {"words": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("model")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if options.rehearse:
        measure_latency.SECONDS, measure_latency.ROUNDS = 0.2, (5, 50)
    for row in PARTS[options.part](open_subject(options.model, options.rehearse)):
        line = json.dumps({"part": options.part, "model": options.model} | row, allow_nan=False)
        with open(options.rows, "a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
