"""Ask ONNX Runtime which operators of the model it computes in bfloat16 here, and try it.

Each type of operator is asked for alone, all others left in float32: a runtime without code for it
refuses to load that. What it has goes into one model, which runs one batch, and ONNX Runtime's profile
of that run says on what types each node ran. Where it casts to float32 by itself, as it does for float16
on a CPU, that is no support.

Reads   case.toml, samples.json, the float32 model.onnx
Writes  onnx_bf16.support.json: whether the variant is made, why not, and what stays float32
Runs    on the CPU, or with --device cuda on a GPU; in a process of its own, which may crash
Usage   python3 -m scripts.backends.onnxruntime.check_bfloat16 data/digits/case.toml --samples results/digits/samples.json \
            --model model_repository/digits_onnx_fp32/1/model.onnx --mode local --device cpu \
            --out results/digits/onnx_bf16.support.json
Prints  onnx_bf16: not made: ONNX Runtime 1.27.0 computes none of Conv, Gemm in bfloat16 on the CPU
"""

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.case.read_case import read_case
from scripts.data.samples import Batch, Samples
from scripts.files import write_json
from scripts.graphs.bf16_forms import counts, operators, opset_of
from scripts.graphs.bf16_passes import convert
from scripts.graphs.session import PROVIDERS, default_threads, open_session
from scripts.step import record, step

if TYPE_CHECKING:
    import onnx

# What holds the weights, and most of the work. Without one of them in bfloat16 nothing is gained.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "RNN", "GRU", "LSTM")
MISSING = "NOT_IMPLEMENTED"  # in ONNX Runtime's words where it has no code for an operator
NO_FORM = "ONNX has no bfloat16 form of it"

LOW = "bfloat16"  # as ONNX Runtime's profile calls it

Found = dict[str, Any]
Kernels = dict[str, tuple[str, set[str]]]


@step(__doc__, "case", "samples", "model", "mode", "device", "out")
def main(case_toml: Path, samples: Path, model: Path, mode: str, device: str, out: Path) -> None:
    import onnx

    case = read_case(case_toml)
    batch = Samples(case, samples).some(case.max_batch)
    open_session(model, device, default_threads())  # what fails here is not bfloat16's fault
    if model.with_name(model.name + ".data").exists():
        found = not_made("its weights are in a second file (2 GB or more), which is not converted")
    else:
        found = apart(ask, model.read_bytes(), device, batch)
    content = {
        **record(
            "support",
            [case.path, samples, model],
            ("onnxruntime", "onnx"),
            "onnx_bf16",
            mode,
            device,
        ),
        **found,
        "nodes": counts(onnx.load(model, load_external_data=False))[1],
    }
    write_json(out, content)
    click.echo(f"onnx_bf16: {found['reason']}")


def apart(function: Callable[..., Found], *arguments: Any) -> Found:
    """The function's answer, from a process of its own. ONNX Runtime's native code may end it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return not_made("ONNX Runtime itself crashes on the model in bfloat16")


def ask(source: bytes, device: str, batch: Batch) -> Found:
    """What stands in the file, for the float32 model in `source`. Never raises."""
    import onnx

    try:
        return support(onnx.load_from_string(source), device, batch)
    except ValueError as error:
        return not_made(str(error))
    except Exception as error:  # of the converter or of ONNX Runtime; the words are kept
        return not_made(f"{runtime()} fails on it on the {name_of(device)}: {words(error)}")


def support(model: "onnx.ModelProto", device: str, batch: Batch) -> Found:
    """The same. Raises click.ClickException with ONNX Runtime's words where it fails otherwise."""
    since = operators(model)
    weighted = [one for one in since if one in WEIGHTED]
    answers = {one: NO_FORM for one, opset in since.items() if opset is None}

    def possible(names: list[str], opset: int) -> list[str]:
        for name in names:
            alone = convert(model, since.keys() - {name}, max(opset, since[name] or 0))
            if answer := refusal(alone, device):
                answers[name] = answer
        return [name for name in names if name not in answers]

    own = opset_of(model)
    taken = possible([one for one in weighted if one not in answers], own)
    if not taken:
        what = f"none of {', '.join(weighted)}" if weighted else "no operator with weights"
        where = f"in bfloat16 on the {name_of(device)}"
        return not_made(f"{runtime()} computes {what} {where}", list(since), answers)
    taken += possible([one for one in since if one not in (*weighted, *answers)], own)
    newest = max(since[one] or 0 for one in taken)
    if newest > own:  # then all of them have to be there in that opset
        possible(taken, newest)
    converted = convert(model, answers)
    if wide := widened(converted, executed(converted, device, batch)):
        return not_made(
            f"{runtime()} casts to float32 for {', '.join(wide)} instead of computing in bfloat16 "
            f"on the {name_of(device)}",
            list(since),
            answers,
        )
    low, nodes = counts(converted)
    return {
        "made": True,
        "reason": f"{runtime()} computes {low} of {nodes} nodes in bfloat16 on the "
        f"{name_of(device)}",
        "kept_operators": list(answers),
        "nodes_bfloat16": low,
        "answers": answers,
    }


def not_made(why: str, kept: list[str] | None = None, answers: Any = None) -> Found:
    """What stands in the file where there is to be no such variant."""
    return {
        "made": False,
        "reason": f"not made: {why}",
        "kept_operators": kept or [],
        "nodes_bfloat16": 0,
        "answers": answers or {},
    }


def refusal(model: "onnx.ModelProto", device: str) -> str | None:
    """ONNX Runtime's words where it has no code for an operator of the model; None where it loads.

    Raises click.ClickException where it fails otherwise.
    """
    try:
        open_session(model.SerializeToString(), device, default_threads())
    except click.ClickException as error:
        if MISSING not in error.message:
            raise
        return words(error)
    return None


def executed(model: "onnx.ModelProto", device: str, batch: Batch) -> Kernels:
    """What ran for one batch: node -> (operator, the element types that it was given)."""
    import onnxruntime

    provider, settings = PROVIDERS[device]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[provider], provider_options=[settings]
        )
        session.run(None, batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {
        event["name"]: (
            event["args"]["op_name"],
            {kind for one in event["args"]["input_type_shape"] for kind in one},
        )
        for event in events
        if event["cat"] == "Node" and event["args"].get("input_type_shape")
    }


def widened(model: "onnx.ModelProto", ran: Kernels) -> list[str]:
    """The operators with weights that the model has in bfloat16 and that did not run in it.

    A fused node is called after what it does (FusedConv, FusedMatMul), under a name of its own, so
    that nodes are counted: no more of them may have run in float32 than are left in it.
    """
    heavy = [(kind, given) for kind, given in ran.values() if any(one in kind for one in WEIGHTED)]
    wide = [kind for kind, given in heavy if LOW not in given]
    low, nodes = weighted_counts(model)
    if len(wide) <= nodes - low and len(wide) < len(heavy):
        return []
    return list(dict.fromkeys(wide)) or ["all of it"]


def weighted_counts(model: "onnx.ModelProto") -> tuple[int, int]:
    """(those in bfloat16, all) of the nodes with weights."""
    import onnx

    from scripts.graphs.fp16_passes import element_types, graphs

    types = element_types(onnx.shape_inference.infer_shapes(model).graph)
    found = [
        onnx.TensorProto.BFLOAT16 in {types.get(name) for name in node.input}
        for graph in graphs(model.graph)
        for node in graph.node
        if node.op_type in WEIGHTED
    ]
    return sum(found), len(found)


def words(error: Exception) -> str:
    """What ONNX Runtime said, in one line, from where it begins."""
    text = error.message if isinstance(error, click.ClickException) else str(error)
    start = max(text.find("[ONNXRuntimeError]"), 0)
    return " ".join(text[start:].split()) or type(error).__name__


def runtime() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def name_of(device: str) -> str:
    return {"cpu": "CPU", "cuda": "GPU"}[device]


if __name__ == "__main__":
    main()
