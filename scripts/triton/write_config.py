"""Write the config.pbtxt of a variant, complete.

The inputs and outputs are read from its ONNX file; a TensorRT engine has those of the ONNX it was built
from (inspect_engine checks it). TorchScript has those of case.toml and of the model, as it was checked.

Reads   case.toml, model.onnx or torch_fp32.check.json
Writes  config.pbtxt, beside the version folder
Runs    on the CPU
Usage   python3 -m scripts.triton.write_config data/digits/case.toml --variant onnx_fp32 --gpu no \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_fp32/config.pbtxt
Prints  digits_onnx_fp32: config.pbtxt for onnxruntime, batches up to 32
"""

from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import Case, read_case
from scripts.files import read_json, writing
from scripts.variants import BY_NAME

QUEUE_DELAY_MICROSECONDS = 500
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8",
         "int32": "TYPE_INT32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}  # fmt: skip
Tensors = dict[str, list[tuple[str, str, list[int]]]]
TORCHSCRIPT_OUTPUT = "output__0"  # the backend wants the position in the name

# Without these a GPU server times convolution algorithms at each load, and may use TF32: the
# results would then change from one load to the next.
ONNX_ON_A_GPU = """\
parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
optimization {
  execution_accelerators {
    gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
  }
}
"""
# Without the first the executor rewrites the graph after the first runs, and results change with it.
TORCHSCRIPT = """\
platform: "pytorch_libtorch"
parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
"""


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="What tells inputs and outputs: model.onnx, or torch_fp32.check.json.",
)
@click.option("--gpu", required=True, type=click.Choice(["yes", "no"]))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, variant: str, model: Path, gpu: str, out: Path) -> None:
    case = read_case(case_toml)
    name, backend = out.parent.name, BY_NAME[variant].backend
    if backend is None:
        raise click.ClickException(f"{variant} is no Triton model: it has no backend.")
    tensors = checked_tensors(case, model) if model.suffix == ".json" else onnx_tensors(model)
    text = get_config(name, backend, tensors, case.max_batch, gpu == "yes")
    with writing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"{name}: config.pbtxt for {backend}, batches up to {case.max_batch}")


def onnx_tensors(model: Path) -> Tensors:
    """ "input" and "output" -> (name, Triton data type, shape of one sample), from the file."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    return {"input": [_tensor(value, model) for value in graph.input],
            "output": [_tensor(value, model) for value in graph.output]}  # fmt: skip


def checked_tensors(case: Case, check: Path) -> Tensors:
    """The same for TorchScript, from case.toml and what check_model saw."""
    shape = read_json(check)["output_shape"]
    return {"input": [(one.name, TYPES[one.dtype], list(one.shape)) for one in case.inputs],
            "output": [(TORCHSCRIPT_OUTPUT, "TYPE_FP32", shape)]}  # fmt: skip


def get_config(name: str, backend: str, tensors: Tensors, max_batch: int, gpu: bool) -> str:
    """The text of config.pbtxt for a model of `backend`: onnxruntime, pytorch or tensorrt."""
    parts = [f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {max_batch}\n']
    for kind, listed in tensors.items():
        for tensor, data_type, dims in listed:
            parts.append(_tensor_config(kind, tensor, data_type, dims))
    parts += [_tuning(max_batch, gpu), _warmup(tensors["input"], max_batch)]
    parts.append(
        {"onnxruntime": ONNX_ON_A_GPU if gpu else "", "pytorch": TORCHSCRIPT}.get(backend, "")
    )
    return "".join(parts)


def _tuning(max_batch: int, gpu: bool) -> str:
    return (
        "dynamic_batching {\n"
        f"  preferred_batch_size: [ {max_batch} ]\n"
        f"  max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS}\n}}\n"
        f"instance_group [ {{ kind: {'KIND_GPU' if gpu else 'KIND_CPU'} count: 1 }} ]\n"
    )


def _warmup(inputs: list[tuple[str, str, list[int]]], max_batch: int) -> str:
    """Zeros at batch 1 and at the largest before the model is called ready."""
    parts = []
    for size in sorted({1, max_batch}):
        listed = "".join(
            f'    inputs {{ key: "{name}" value {{ data_type: {kind} '
            f"dims: [ {', '.join(map(str, dims or [1]))} ] zero_data: true }} }}\n"
            for name, kind, dims in inputs
        )
        parts.append(f'model_warmup {{\n    name: "batch {size}" batch_size: {size}\n{listed}}}\n')
    return "".join(parts)


def _tensor_config(kind: str, name: str, data_type: str, dims: list[int]) -> str:
    shape = ", ".join(str(size) for size in dims)
    if not dims:  # Triton has no empty dims: one number per sample is [ 1 ], reshaped to nothing
        return (
            f'{kind} [ {{ name: "{name}" data_type: {data_type} dims: [ 1 ] '
            "reshape { shape: [ ] } } ]\n"
        )
    return f'{kind} [ {{ name: "{name}" data_type: {data_type} dims: [ {shape} ] }} ]\n'


def _tensor(value: Any, model: Path) -> tuple[str, str, list[int]]:
    import onnx

    kinds: dict[int, str] = {
        onnx.TensorProto.DataType.Value({"float32": "FLOAT"}.get(name, name.upper())): kind
        for name, kind in TYPES.items()
    }
    kind = value.type.tensor_type
    if kind.elem_type not in kinds:
        raise click.ClickException(
            f"{model}: {value.name!r} is {onnx.TensorProto.DataType.Name(kind.elem_type)}, which "
            f"is none of {', '.join(kinds.values())}. Give it another type in the model."
        )
    if not kind.shape.dim:
        raise click.ClickException(f"{model}: {value.name!r} has no axes; the first is the batch.")
    first, *rest = kind.shape.dim
    if first.dim_value:
        raise click.ClickException(
            f"{model}: the first axis of {value.name!r} is fixed at {first.dim_value}; Triton "
            "batches only a dynamic one."
        )
    if not all(axis.dim_value for axis in rest):
        raise click.ClickException(
            f"{model}: the shape of {value.name!r} is known only as "
            f"{[axis.dim_value or axis.dim_param for axis in kind.shape.dim]}; all axes but the "
            "first must be numbers."
        )
    return value.name, kinds[kind.elem_type], [axis.dim_value for axis in rest]


if __name__ == "__main__":
    main()
