"""The list of variants: the one place where they stand; Make, steps and report derive from it.

Runs   on the host, with the standard library alone: Make calls it before anything is installed.
Usage  python3 -m scripts.variants --mode local --gpu no --skip onnx_fp16 --made onnx_int8_mixed
Prints the names of the variants that can run here, one per line.
"""

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = ("torch",)  # the kinds of model that a case can bring, the default first
# Where a variant is made and run: the image of that name, or .venv; and why local mode lacks it.
ENVIRONMENTS = {
    "pytorch": None,
    "tensorrt": "TensorRT comes with the containers (MODE=docker)",
}


@dataclass(frozen=True)
class Variant:
    """One form of the model. `name` is `<backend>_<number format>`."""

    name: str
    family: str
    source: str | None  # the variant it is converted from; None: what the user trained
    runtime: str  # what runs it in process, as the report calls it
    precision: str  # the number format of its weights: float32, float16, bfloat16, int8
    file: str | None  # its file in a Triton version folder; None: not a Triton model
    backend: str | None  # its Triton backend, a folder in scripts/backends/; None: the reference
    environment: str
    needs_gpu: bool
    sentence: str  # for the report
    # Whether it is made is found out by a step, in <variant>.<decided>.json; None: it always is.
    decided: str | None = None
    repairs: str | None = None  # the variant whose flips it takes back
    fallback: bool = False  # what is released where nothing faster may be

    @property
    def folder(self) -> str:
        """The package that holds all that is true of its backend, or of its family, alone."""
        if self.backend is None:
            return f"scripts.families.{self.family}"
        return f"scripts.backends.{self.backend}"

    def has(self, name: str) -> bool:
        """Whether that folder holds a file of this name, as `part` takes it."""
        return (Path(__file__).parents[1] / self.folder.replace(".", "/") / f"{name}.py").is_file()

    @property
    def layered(self) -> bool:
        """Whether it is compared layer by layer, with the converted form that it was made from."""
        return bool(self.source and BY_NAME[self.source].source) and self.has("layers")

    @property
    def ranged(self) -> bool:
        """Whether the values inside it are looked through for what its float16 forms cannot hold."""
        return self.has("check_range") and any(
            (one.source, one.backend, one.precision) == (self.name, self.backend, "float16")
            for one in VARIANTS
        )

    @property
    def repaired(self) -> bool:
        """Whether the tuning half chose its nodes; no claim is made there."""
        source = BY_NAME.get(self.source or "")
        return self.repairs is not None or (source is not None and source.repaired)

    @property
    def calibrated(self) -> bool:
        """Whether a part of the test data calibrated it; no flip is counted there."""
        return self.precision == "int8"


def part(variant: str, name: str) -> Any:
    """A file of the folder of the variant's backend, or of its family: "open", "config", ...

    No step asks which backend it is: it takes the file of that name.
    """
    return importlib.import_module(f"{BY_NAME[variant].folder}.{name}")


VARIANTS = (
    Variant(
        "torch_fp32", "torch", None, "torch", "float32",
        None, None, "pytorch", False,
        "The .pth itself in true float32: the reference, whose verdicts are taken as right.",
    ),
    Variant(
        "torchscript_fp32", "torch", "torch_fp32", "torchscript", "float32",
        "model.pt", "pytorch", "pytorch", False,
        "Traced with torch.jit, for Triton's PyTorch backend; all weights in float32.",
    ),
    Variant(
        "onnx_fp32", "torch", "torch_fp32", "onnxruntime", "float32",
        "model.onnx", "onnxruntime", "pytorch", False,
        "Exported with torch.onnx, all weights in float32.",
        fallback=True,
    ),
    Variant(
        "onnx_fp16", "torch", "onnx_fp32", "onnxruntime", "float16",
        "model.onnx", "onnxruntime", "pytorch", False,
        "Converted with onnxconverter-common; inputs and outputs stay float32.",
    ),
    Variant(
        "onnx_fp16_mixed", "torch", "onnx_fp32", "onnxruntime", "float16",
        "model.onnx", "onnxruntime", "pytorch", False,
        "The float16 ONNX with the fewest nodes left in float32 that take its flips back.",
        decided="repair", repairs="onnx_fp16",
    ),
    Variant(
        "onnx_bf16", "torch", "onnx_fp32", "onnxruntime", "bfloat16",
        "model.onnx", "onnxruntime", "pytorch", False,
        "bfloat16 wherever ONNX Runtime computes in it; inputs and outputs stay float32.",
        decided="support",
    ),
    Variant(
        "onnx_int8", "torch", "onnx_fp32", "onnxruntime", "int8",
        "model.onnx", "onnxruntime", "pytorch", False,
        "Quantised with ONNX Runtime (QDQ, static, per channel), calibrated on a part of the test data.",
    ),
    Variant(
        "onnx_int8_mixed", "torch", "onnx_fp32", "onnxruntime", "int8",
        "model.onnx", "onnxruntime", "pytorch", False,
        "The int8 ONNX with the fewest nodes left in float32 that take its flips back.",
        decided="repair", repairs="onnx_int8",
    ),
    Variant(
        "trt_fp32", "torch", "onnx_fp32", "tensorrt", "float32",
        "model.plan", "tensorrt", "tensorrt", True,
        "TensorRT engine from the float32 ONNX, TF32 off.",
    ),
    Variant(
        "trt_fp16", "torch", "onnx_fp16", "tensorrt", "float16",
        "model.plan", "tensorrt", "tensorrt", True,
        "TensorRT engine from the float16 ONNX, strongly typed.",
    ),
    Variant(
        "trt_fp16_mixed", "torch", "onnx_fp16_mixed", "tensorrt", "float16",
        "model.plan", "tensorrt", "tensorrt", True,
        "TensorRT engine from the repaired float16 ONNX, strongly typed.",
    ),
    Variant(
        "trt_int8", "torch", "onnx_int8", "tensorrt", "int8",
        "model.plan", "tensorrt", "tensorrt", True,
        "TensorRT engine from the int8 ONNX, strongly typed.",
    ),
    Variant(
        "trt_int8_mixed", "torch", "onnx_int8_mixed", "tensorrt", "int8",
        "model.plan", "tensorrt", "tensorrt", True,
        "TensorRT engine from the repaired int8 ONNX, strongly typed.",
    ),
)  # fmt: skip

BY_NAME = {variant.name: variant for variant in VARIANTS}
# family -> the variant whose verdicts are taken as right
REFERENCES = {one.family: one for one in VARIANTS if one.source is None}


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
    lacks = ENVIRONMENTS[variant.environment]
    if lacks and mode == "local":
        return f"not measured here: {lacks}"
    for name, verb in ((variant.source, "is made from"), (variant.repairs, "repairs")):
        if name is not None:
            reason = not_here(BY_NAME[name], mode, gpu, skip, made)
            if reason:
                lost = "not made" if reason == NOT_MADE else "left out"
                return f"not measured here: it {verb} {name}, which is {lost}"
    return None


def of_family(family: str) -> tuple[Variant, ...]:
    """The forms that a case of this family can have, in the order of the report."""
    return tuple(one for one in VARIANTS if one.family == family)


def main() -> None:
    """Print the names of the variants that run on this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["local", "docker"], default="local")
    parser.add_argument("--gpu", choices=["yes", "no"], default="no")
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0])
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--made", nargs="*", default=[], metavar="NAME", help="decided to be made")
    parser.add_argument(
        "--facts",
        action="store_true",
        help="name|source|backend|environment|file of each, and <variant>.<step> of each that a step decides on",
    )
    options = parser.parse_args()
    here = (options.mode, options.gpu == "yes", tuple(options.skip), tuple(options.made))
    for variant in of_family(options.family):
        if options.facts and variant.decided and not undecided(variant, *here):
            print(f"{variant.name}.{variant.decided}")
        if not not_here(variant, *here):
            facts = (variant.source, variant.backend, variant.environment, variant.file)
            told = [variant.name, *(fact or "-" for fact in facts)]
            print("|".join(told) if options.facts else variant.name)


if __name__ == "__main__":
    main()
