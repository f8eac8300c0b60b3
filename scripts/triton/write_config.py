"""Write the config.pbtxt of a variant, complete.

What every model is told stands here; what one Triton backend is told, and where its inputs and outputs are
read from, in its own folder: scripts/backends/<backend>/config.py.

Reads   case.toml, model.onnx or torch_fp32.check.json
Writes  config.pbtxt, beside the version folder
Runs    on the CPU
Usage   python3 -m scripts.triton.write_config data/digits/case.toml --variant onnx_fp32 --gpu no \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out model_repository/digits_onnx_fp32/config.pbtxt
Prints  digits_onnx_fp32: config.pbtxt for onnxruntime, batches up to 32
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scripts.case.read_case import read_case
from scripts.graphs.ends import End, Ends
from scripts.step import A_FILE, step
from scripts.triton.model_config import write_text
from scripts.variants import BY_NAME, part

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelWarmup

QUEUE_DELAY_MICROSECONDS = 500
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8",
         "int32": "TYPE_INT32", "int64": "TYPE_INT64", "bool": "TYPE_BOOL"}  # fmt: skip
# Why fields are as they are, in every model that has them so.
RESHAPED = "One number per sample is [1], reshaped to nothing: Triton has no empty dims."
COMMENTS = {
    "dynamic_batching": "A request waits this long, at most, for others to be answered in one batch with.",
    "model_warmup": "Zeros, at batch 1 and at the largest, before the model is called ready.",
}


@step(__doc__, "case", "variant", "gpu", "out")
@click.option(
    "--model",
    required=True,
    type=A_FILE,
    help="What tells inputs and outputs: model.onnx, or torch_fp32.check.json.",
)
def main(case_toml: Path, variant: str, model: Path, gpu: str, out: Path) -> None:
    case = read_case(case_toml)
    name, backend = out.parent.name, BY_NAME[variant].backend
    if backend is None:
        raise click.ClickException(f"{variant} is no Triton model: it has no backend.")
    ends = part(variant, "config").ends(case, model)
    config = get_config(name, variant, ends, case.max_batch, gpu == "yes")
    write_text(out, config, get_comments(variant, config))
    click.echo(f"{name}: config.pbtxt for {backend}, batches up to {case.max_batch}")


def get_config(name: str, variant: str, ends: Ends, max_batch: int, gpu: bool) -> "ModelConfig":
    """The configuration of a variant, served under `name`."""
    backend = BY_NAME[variant].backend
    if backend is None:
        raise ValueError(f"{variant} has no backend")
    config = get_common(name, backend, ends, max_batch, gpu)
    part(variant, "config").complete(config, gpu)
    return config


def get_comments(variant: str, config: "ModelConfig") -> dict[str, str]:
    """Why the fields of a variant's configuration are as they are, by their names."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

    gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    reshaped = {
        kind: RESHAPED
        for kind, tensors in (("input", config.input), ("output", config.output))
        if any(tensor.HasField("reshape") for tensor in tensors)
    }
    return COMMENTS | reshaped | part(variant, "config").complete(ModelConfig(), gpu)


def get_common(name: str, backend: str, ends: Ends, max_batch: int, gpu: bool) -> "ModelConfig":
    """What every model is told, whatever its backend."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    config = ModelConfig(name=name, backend=backend, max_batch_size=max_batch)
    for tensors, listed in ((config.input, ends.inputs), (config.output, ends.outputs)):
        for end in listed:
            tensor = tensors.add(name=end.name, data_type=TYPES[end.dtype], dims=_dims(end))
            if not end.shape:
                tensor.reshape.SetInParent()
    config.dynamic_batching.preferred_batch_size.append(max_batch)
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_MICROSECONDS
    config.instance_group.add(kind="KIND_GPU" if gpu else "KIND_CPU", count=1)
    for size in sorted({1, max_batch}):
        _warm_up(config.model_warmup.add(), ends.inputs, size)
    return config


def _warm_up(warmup: "ModelWarmup", inputs: tuple[End, ...], size: int) -> None:
    """Zeros at one batch size."""
    warmup.name, warmup.batch_size = f"batch {size}", size
    for end in inputs:
        zeros = type(warmup).Input(data_type=TYPES[end.dtype], dims=_dims(end), zero_data=True)
        warmup.inputs[end.name].CopyFrom(zeros)


def _dims(end: End) -> list[int]:
    """The shape of one sample as Triton takes it, which has no empty dims."""
    return list(end.shape) or [1]


if __name__ == "__main__":
    main()
