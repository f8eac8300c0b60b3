"""Write the config.pbtxt of a variant, complete, from its ONNX file.

A TensorRT engine has the inputs and outputs of the ONNX it was built from (inspect_engine checks it).

Reads   case.toml, model.onnx
Writes  config.pbtxt, beside the version folder
Runs    on the CPU
Usage   python3 -m scripts.write_config data/digits/case.toml --variant onnx_fp32 --gpu no \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_fp32/config.pbtxt
Prints  digits_onnx_fp32: config.pbtxt for onnxruntime, batches up to 32
"""

from pathlib import Path
from typing import Any

import click

from scripts.case import read_case
from scripts.files import writing
from scripts.variants import BY_NAME

QUEUE_DELAY_MICROSECONDS = 500

# Without these a GPU server times convolution algorithms at each load, and may use TF32: the
# results would then change from one load to the next.
PINNED = """\
parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }
optimization {
  execution_accelerators {
    gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
  }
}
"""


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--model", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--gpu", required=True, type=click.Choice(["yes", "no"]))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, variant: str, model: Path, gpu: str, out: Path) -> None:
    case = read_case(case_toml)
    name, backend = out.parent.name, BY_NAME[variant].backend
    if backend is None:
        raise click.ClickException(f"{variant} is no Triton model: it has no backend.")
    text = get_config(name, backend, onnx_tensors(model), case.max_batch, gpu == "yes")
    with writing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"{name}: config.pbtxt for {backend}, batches up to {case.max_batch}")


def onnx_tensors(model: Path) -> dict[str, list[tuple[str, str, list[int]]]]:
    """ "input" and "output" -> (name, Triton data type, shape of one sample), from the file."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    return {"input": [_tensor(value, model) for value in graph.input],
            "output": [_tensor(value, model) for value in graph.output]}  # fmt: skip


def get_config(
    name: str, backend: str, tensors: dict[str, list[tuple[str, str, list[int]]]], max_batch: int,
    gpu: bool,
) -> str:  # fmt: skip
    """The text of config.pbtxt for a model of `backend`: onnxruntime, or tensorrt (on a GPU only)."""
    parts = [f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {max_batch}\n']
    for kind, listed in tensors.items():
        for tensor, data_type, dims in listed:
            parts.append(_tensor_config(kind, tensor, data_type, dims))
    parts.append(
        "dynamic_batching {\n"
        f"  preferred_batch_size: [ {max_batch} ]\n"
        f"  max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS}\n}}\n"
    )
    parts.append(f"instance_group [ {{ kind: {'KIND_GPU' if gpu else 'KIND_CPU'} count: 1 }} ]\n")
    return "".join(parts) + (PINNED if gpu and backend == "onnxruntime" else "")


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
        onnx.TensorProto.FLOAT: "TYPE_FP32",
        onnx.TensorProto.FLOAT16: "TYPE_FP16",
        onnx.TensorProto.UINT8: "TYPE_UINT8",
        onnx.TensorProto.INT32: "TYPE_INT32",
        onnx.TensorProto.INT64: "TYPE_INT64",
        onnx.TensorProto.BOOL: "TYPE_BOOL",
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
