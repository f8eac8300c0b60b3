"""The list of variants: the one place where they stand; Make, steps and report derive from it.

Runs   on the host, with the standard library alone: Make calls it before anything is installed.
Usage  python3 -m scripts.variants --mode local --gpu no --skip onnx_fp16
Prints the names of the variants that can run here, one per line.
"""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One form of the model. `name` is `<backend>_<precision>`."""

    name: str
    source: str | None  # the variant it is converted from; None: the .pth itself
    runtime: str  # what runs it in process: torch, torchscript, onnxruntime, tensorrt
    precision: str  # what its weights are held in: float32, float16
    file: str | None  # its file in a Triton version folder; None: not a Triton model
    backend: str | None  # its Triton backend
    needs_gpu: bool
    sentence: str  # for the report

    @property
    def package(self) -> str:
        """The Python package that runs it in process."""
        return "torch" if self.runtime == "torchscript" else self.runtime


VARIANTS = (
    Variant(
        "torch_fp32", None, "torch", "float32", None, None, False,
        "The .pth itself in true float32: the reference, whose verdicts are taken as right.",
    ),
    Variant(
        "torchscript_fp32", "torch_fp32", "torchscript", "float32", "model.pt", "pytorch", False,
        "Traced with torch.jit, for Triton's PyTorch backend; all weights in float32.",
    ),
    Variant(
        "onnx_fp32", "torch_fp32", "onnxruntime", "float32", "model.onnx", "onnxruntime", False,
        "Exported with torch.onnx, all weights in float32.",
    ),
    Variant(
        "onnx_fp16", "onnx_fp32", "onnxruntime", "float16", "model.onnx", "onnxruntime", False,
        "Converted with onnxconverter-common; inputs and outputs stay float32.",
    ),
    Variant(
        "trt_fp32", "onnx_fp32", "tensorrt", "float32", "model.plan", "tensorrt", True,
        "TensorRT engine from the float32 ONNX, TF32 off.",
    ),
    Variant(
        "trt_fp16", "onnx_fp16", "tensorrt", "float16", "model.plan", "tensorrt", True,
        "TensorRT engine from the float16 ONNX, strongly typed.",
    ),
)  # fmt: skip

REFERENCE = VARIANTS[0]
BY_NAME = {variant.name: variant for variant in VARIANTS}


def not_here(variant: Variant, mode: str, gpu: bool, skip: tuple[str, ...]) -> str | None:
    """Why this variant is not measured on this machine, as a phrase; None where it is."""
    if variant.name in skip:
        return 'left out by "skip" in case.toml'
    if variant.needs_gpu and not gpu:
        return "not measured here: needs a GPU"
    if variant.runtime == "tensorrt" and mode == "local":
        return "not measured here: TensorRT comes with the containers (MODE=docker)"
    if variant.source is not None:
        source = BY_NAME[variant.source]
        if not_here(source, mode, gpu, skip):
            return f"not measured here: it is made from {source.name}, which is left out"
    return None


def main() -> None:
    """Print the names of the variants that run on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["local", "docker"], default="local")
    parser.add_argument("--gpu", choices=["yes", "no"], default="no")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME")
    options = parser.parse_args()
    for variant in VARIANTS:
        if not not_here(variant, options.mode, options.gpu == "yes", tuple(options.skip)):
            print(variant.name)


if __name__ == "__main__":
    main()
