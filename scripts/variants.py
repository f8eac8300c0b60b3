"""The list of variants: the one place where they stand; Make, steps and report derive from it.

Runs   on the host, with the standard library alone: Make calls it before anything is installed.
Usage  python3 -m scripts.variants --mode local --gpu no --skip onnx_fp16 --made onnx_int8_mixed
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
    precision: str  # what its weights are held in: float32, float16, bfloat16, int8
    file: str | None  # its file in a Triton version folder; None: not a Triton model
    backend: str | None  # its Triton backend
    needs_gpu: bool
    sentence: str  # for the report
    # Whether it is made is found out by a step, in <variant>.<decided>.json; None: it always is.
    decided: str | None = None
    repairs: str | None = None  # the variant whose flips it takes back

    @property
    def package(self) -> str:
        """The Python package that runs it in process."""
        return "torch" if self.runtime == "torchscript" else self.runtime

    @property
    def repaired(self) -> bool:
        """Whether the tuning half chose its nodes; no claim is made there."""
        source = BY_NAME.get(self.source or "")
        return self.repairs is not None or (source is not None and source.repaired)

    @property
    def calibrated(self) -> bool:
        """Whether a part of the test data calibrated it; no flip is counted there."""
        return self.precision == "int8"


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
        "onnx_fp16_mixed", "onnx_fp32", "onnxruntime", "float16", "model.onnx", "onnxruntime", False,
        "The float16 ONNX with the fewest nodes left in float32 that take its flips back.",
        decided="repair", repairs="onnx_fp16",
    ),
    Variant(
        "onnx_bf16", "onnx_fp32", "onnxruntime", "bfloat16", "model.onnx", "onnxruntime", False,
        "bfloat16 wherever ONNX Runtime computes in it; inputs and outputs stay float32.",
        decided="support",
    ),
    Variant(
        "onnx_int8", "onnx_fp32", "onnxruntime", "int8", "model.onnx", "onnxruntime", False,
        "Quantised with ONNX Runtime (QDQ, static, per channel), calibrated on a part of the test data.",
    ),
    Variant(
        "onnx_int8_mixed", "onnx_fp32", "onnxruntime", "int8", "model.onnx", "onnxruntime", False,
        "The int8 ONNX with the fewest nodes left in float32 that take its flips back.",
        decided="repair", repairs="onnx_int8",
    ),
    Variant(
        "trt_fp32", "onnx_fp32", "tensorrt", "float32", "model.plan", "tensorrt", True,
        "TensorRT engine from the float32 ONNX, TF32 off.",
    ),
    Variant(
        "trt_fp16", "onnx_fp16", "tensorrt", "float16", "model.plan", "tensorrt", True,
        "TensorRT engine from the float16 ONNX, strongly typed.",
    ),
    Variant(
        "trt_fp16_mixed", "onnx_fp16_mixed", "tensorrt", "float16", "model.plan", "tensorrt", True,
        "TensorRT engine from the repaired float16 ONNX, strongly typed.",
    ),
    Variant(
        "trt_int8", "onnx_int8", "tensorrt", "int8", "model.plan", "tensorrt", True,
        "TensorRT engine from the int8 ONNX, strongly typed.",
    ),
    Variant(
        "trt_int8_mixed", "onnx_int8_mixed", "tensorrt", "int8", "model.plan", "tensorrt", True,
        "TensorRT engine from the repaired int8 ONNX, strongly typed.",
    ),
)  # fmt: skip

REFERENCE = VARIANTS[0]
BY_NAME = {variant.name: variant for variant in VARIANTS}


NOT_MADE = "not made"


def not_here(
    variant: Variant, mode: str, gpu: bool, skip: tuple[str, ...], made: tuple[str, ...] = ()
) -> str | None:
    """Why this variant is not measured on this machine, as a phrase; None where it is.

    `made`: the variants of which a step has decided that they are made.
    """
    why = undecided(variant, mode, gpu, skip, made)
    if why is None and variant.decided and variant.name not in made:
        return NOT_MADE
    return why


def undecided(
    variant: Variant, mode: str, gpu: bool, skip: tuple[str, ...], made: tuple[str, ...]
) -> str | None:
    """The same, before a step has decided whether the variant itself is made."""
    if variant.name in skip:
        return 'left out by "skip" in case.toml'
    if variant.needs_gpu and not gpu:
        return "not measured here: needs a GPU"
    if variant.runtime == "tensorrt" and mode == "local":
        return "not measured here: TensorRT comes with the containers (MODE=docker)"
    for name, verb in ((variant.source, "is made from"), (variant.repairs, "repairs")):
        if name is not None:
            reason = not_here(BY_NAME[name], mode, gpu, skip, made)
            if reason:
                lost = "not made" if reason == NOT_MADE else "left out"
                return f"not measured here: it {verb} {name}, which is {lost}"
    return None


def main() -> None:
    """Print the names of the variants that run on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["local", "docker"], default="local")
    parser.add_argument("--gpu", choices=["yes", "no"], default="no")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--made", nargs="*", default=[], metavar="NAME", help="decided to be made")
    parser.add_argument(
        "--decided", action="store_true", help="<variant>.<step> of each that a step decides on"
    )
    options = parser.parse_args()
    here = (options.mode, options.gpu == "yes", tuple(options.skip), tuple(options.made))
    for variant in VARIANTS:
        if options.decided:
            if variant.decided and not undecided(variant, *here):
                print(f"{variant.name}.{variant.decided}")
        elif not not_here(variant, *here):
            print(variant.name)


if __name__ == "__main__":
    main()
