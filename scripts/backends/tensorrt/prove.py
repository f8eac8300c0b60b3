"""Prove from a TensorRT engine itself what precision it computes in, and that it fits the case.

The engine inspector lists the layers that were built, with the data types that go in and out. An
engine called float16 in which no layer computes in half is refused, and so is a float32 one in
which any does.

Reads   case.toml, model.plan
Writes  <variant>.precision.json: the share of layers in float16; inputs, outputs, profile
Runs    in the tensorrt container, on a GPU
Usage   python3 -m scripts.backends.tensorrt.prove data/digits/case.toml --variant trt_fp16 \
            --samples results/digits/samples.json \
            --model model_repository/digits_trt_fp16/1/model.plan \
            --out results/digits/trt_fp16.precision.json
Prints  trt_fp16: 6 of 6 layers compute in float16
"""

import json
import re
from pathlib import Path
from typing import Any

import click

from scripts.backends.tensorrt.engine import infer, open_engine
from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples
from scripts.files import write_json
from scripts.step import record, step
from scripts.variants import BY_NAME

# What TensorRT 10 ("Format/Datatype": "Row major linear FP16 format", "Half") and 11 ("Datatype")
# call the types. In this order: "BFloat16" holds "float".
KINDS = (
    ("bfloat16", r"bfloat16|bf16"),
    ("float8", r"fp8|float8"),
    ("int8", r"int8"),
    ("float16", r"half|fp16|float16"),
    ("float32", r"float|fp32"),
)
NARROW_FIRST = ("float8", "int8", "float16", "bfloat16", "float32")
# These move or convert values and compute nothing.
IDLE = re.compile(r"reformat|noop|constant|shuffle|cast|identity|shape_call|trainstation", re.I)


@step(__doc__, "case", "variant", "samples", "model", "out")
def main(case_toml: Path, variant: str, samples: Path, model: Path, out: Path) -> None:
    case = read_case(case_toml)
    batch = Samples(case, samples).some(case.max_batch)
    with open_engine(model) as runner:
        infer(runner, batch)  # gives the context its shapes; without them types are "N/A"
        listed = inspect(runner.engine, runner.context)
        check_fit(tensors(runner.engine), case, model)
    wanted = BY_NAME[variant].precision
    found = shares(listed)
    check(found, wanted, variant, model)
    share = found["shares"].get(wanted, 0.0) if wanted != "float32" else 0.0
    content = {
        **record(
            "precision",
            [case_toml, samples, model],
            ("tensorrt", "polygraphy"),
            variant,
            "docker",
            "cuda",
        ),
        "metrics": found
        | {"precision": wanted, "share": share, "file_bytes": model.stat().st_size},
    }
    write_json(out, content)
    shown = wanted if wanted != "float32" else "float16"
    click.echo(
        f"{variant}: {found['nodes_' + shown]} of {found['nodes']} layers compute in {shown}"
    )


def inspect(engine: Any, context: Any) -> list[Any]:
    """The engine's layers, as the inspector lists them."""
    import tensorrt

    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON)
    content = json.loads(text)
    layers: list[Any] = content["Layers"] if isinstance(content, dict) else content
    return layers


def tensors(engine: Any) -> dict[str, tuple[str, list[int], int]]:
    """name -> (dtype as NumPy calls it, shape with -1 for the batch, largest batch of the profile)."""
    import tensorrt

    found = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        largest = -1
        if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT:
            largest = engine.get_tensor_profile_shape(name, 0)[2][0]
        dtype = tensorrt.nptype(engine.get_tensor_dtype(name)).__name__
        found[name] = (dtype.rstrip("_"), list(engine.get_tensor_shape(name)), largest)
    return found


def check_fit(found: dict[str, tuple[str, list[int], int]], case: Case, model: Path) -> None:
    """Refuse an engine whose inputs, output or profile are not what the case needs."""
    for one in case.inputs:
        wanted = (one.dtype, [-1, *one.shape], case.max_batch)
        if found.get(one.name) != wanted:
            raise click.ClickException(
                f"{model}: the input {one.name!r} is {found.get(one.name)}, and {wanted} (type, "
                "shape, largest batch) is needed. Remove the engine and run `make all`."
            )
    outputs = {name: what for name, what in found.items() if what[2] == -1}
    if len(outputs) != 1 or next(iter(outputs.values()))[0] != "float32":
        raise click.ClickException(
            f"{model}: its outputs are {outputs}, and a single float32 one is needed. Remove the "
            "engine and run `make all`."
        )


def shares(layers: list[Any]) -> dict[str, Any]:
    """Counts over the layers that compute in floating point or int8, from what goes in and out of each.

    A layer computes in float16 (or int8) when its weights are, or any tensor of it is: at the edge of the
    graph the conversion from and to float32 is often fused into it. `undetermined` counts layers
    without such a type; `shares` gives the share of layers by type. Raises ValueError where the inspector gave names only.
    """
    kinds: list[str | None] = []
    for layer in layers:
        if not isinstance(layer, dict):
            raise ValueError("the inspector gives names only: the plan was built without detail")
        if IDLE.search(f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"):
            continue
        kinds.append(layer_kind(layer))
    known = [kind for kind in kinds if kind is not None]
    half = known.count("float16")
    return {
        "nodes": len(known),
        "nodes_float16": half,
        "nodes_int8": known.count("int8"),
        "nodes_float32": known.count("float32"),
        "shares": {kind: known.count(kind) / len(known) for kind in sorted(set(known))},
        "undetermined": len(kinds) - len(known),
        "node_share_float16": half / len(known) if known else 0.0,
        "share_float16": half / len(known) if known else 0.0,
        "share_of": "layers",
        "counted": len(known),
    }


def layer_kind(layer: dict[str, Any]) -> str | None:
    """The narrowest type among a layer's tensors and weights; None: it has none."""
    told = [
        str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("DataType") or "")
        for side in ("Inputs", "Outputs")
        for tensor in layer.get(side) or []
    ]
    for stored in ("Weights", "Bias"):
        if isinstance(layer.get(stored), dict):
            told.append(str(layer[stored].get("Type", "")))
    found = {type_kind(text) for text in told}
    return next((kind for kind in NARROW_FIRST if kind in found), None)


def type_kind(text: str) -> str | None:
    """Which type a spelling of TensorRT's means; None for others and "N/A"."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, text, re.I)), None)


def check(found: dict[str, Any], wanted: str, variant: str, model: Path) -> None:
    """Refuse an engine that does not compute in what it is called."""
    if not found["nodes"]:
        raise click.ClickException(
            f"{model}: the inspector names no type for any of {found['undetermined']} layers, so "
            "its precision is not proven. Build it with --profilingVerbosity=detailed."
        )
    if wanted != "float32" and not found[f"nodes_{wanted}"]:
        raise click.ClickException(
            f"{model} is called {variant}, and none of its {found['nodes']} layers computes in "
            f"{wanted}. It must not be shipped under that name; see the log of its build."
        )
    for narrow in ("float16", "int8"):
        if wanted == "float32" and found[f"nodes_{narrow}"]:
            raise click.ClickException(
                f"{model} is called {variant}, and {found[f'nodes_{narrow}']} of its "
                f"{found['nodes']} layers compute in {narrow}."
            )


if __name__ == "__main__":
    main()
