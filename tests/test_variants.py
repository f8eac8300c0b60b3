"""The one list of variants, and what derives from it."""

import subprocess
import sys

import pytest

from scripts.variants import (
    BY_NAME,
    ENVIRONMENTS,
    FAMILIES,
    NOT_MADE,
    REFERENCES,
    VARIANTS,
    not_here,
    undecided,
)


def listed(*arguments: str) -> list[str]:
    command = [sys.executable, "-S", "-m", "scripts.variants", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def decided(*arguments: str) -> list[str]:
    """What make is told of steps that decide."""
    return [one for one in listed("--facts", *arguments) if "|" not in one]


def test_make_gets_the_names_with_the_standard_library_alone() -> None:
    assert listed("--gpu", "no", "--skip") == [
        "torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_fp16", "onnx_int8",
    ]  # fmt: skip
    assert decided("--skip") == [
        "onnx_fp16_mixed.repair", "onnx_bf16.support", "onnx_int8_mixed.repair",
    ]  # fmt: skip
    assert listed("--facts", "--skip", *(one.name for one in VARIANTS[2:])) == [
        "torch_fp32|-|-|pytorch|-", "torchscript_fp32|torch_fp32|pytorch|pytorch|model.pt",
    ]  # fmt: skip


def test_engines_come_with_the_containers_and_a_gpu() -> None:
    every = [variant.name for variant in VARIANTS]
    found_out = [variant.name for variant in VARIANTS if variant.decided]
    assert listed("--mode", "docker", "--gpu", "yes", "--made", *found_out, "--skip") == every
    assert not set(listed("--mode", "docker", "--gpu", "no")) & {"trt_fp32", "trt_fp16"}
    assert not set(listed("--mode", "local", "--gpu", "yes")) & {"trt_fp32", "trt_fp16"}
    reason = not_here(BY_NAME["trt_fp32"], "local", True, ())
    assert reason == "not measured here: TensorRT comes with the containers (MODE=docker)"
    skipped = listed("--mode", "docker", "--gpu", "yes", "--skip", "onnx_fp16")
    assert skipped == [
        "torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_int8", "trt_fp32", "trt_int8",
    ]  # fmt: skip


def test_what_a_step_decides_on_is_made_only_where_it_said_so() -> None:
    local = ("local", False, ())
    assert not_here(BY_NAME["onnx_int8_mixed"], *local, ()) == NOT_MADE
    assert not_here(BY_NAME["onnx_int8_mixed"], *local, ("onnx_int8_mixed",)) is None
    assert undecided(BY_NAME["onnx_int8_mixed"], *local, ()) is None
    assert not_here(BY_NAME["trt_int8_mixed"], "docker", True, (), ()) == (
        "not measured here: it is made from onnx_int8_mixed, which is not made"
    )
    assert not_here(BY_NAME["trt_int8_mixed"], "docker", True, (), ("onnx_int8_mixed",)) is None


def test_the_repair_of_a_skipped_variant_is_not_sought() -> None:
    assert undecided(BY_NAME["onnx_fp16_mixed"], "local", False, ("onnx_fp16",), ()) == (
        "not measured here: it repairs onnx_fp16, which is left out"
    )
    assert decided("--skip", "onnx_fp16", "onnx_bf16") == ["onnx_int8_mixed.repair"]


def test_what_is_made_from_a_skipped_variant_is_skipped_too() -> None:
    rest = ["torch_fp32", "torchscript_fp32"]
    left = ["onnx_fp16", "onnx_int8"]
    assert listed("--gpu", "no", "--skip", *left) == [*rest, "onnx_fp32"]
    assert listed("--gpu", "no", "--skip", "onnx_fp32") == rest
    reason = not_here(BY_NAME["onnx_fp16"], "local", False, ("onnx_fp32",))
    assert reason == "not measured here: it is made from onnx_fp32, which is left out"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_row_is_whole(variant) -> None:  # type: ignore[no-untyped-def]
    assert variant.source is None or variant.source in BY_NAME
    is_reference = variant is REFERENCES[variant.family]
    assert is_reference == (variant.source is None) == (variant.file is None)
    assert variant.environment in ENVIRONMENTS
    assert variant.sentence.endswith(".")
    short = {
        "torch": "torch",
        "torchscript": "torchscript",
        "onnxruntime": "onnx",
        "tensorrt": "trt",
    }[variant.runtime]
    held = variant.precision.replace("bfloat", "bf").replace("float", "fp")
    mixed = "_mixed" if variant.repairs or (variant.source or "").endswith("_mixed") else ""
    assert variant.name == f"{short}_{held}{mixed}"
    assert variant.repairs is None or variant.name == f"{variant.repairs}_mixed"


def test_engines_of_a_repaired_onnx_are_repaired_too() -> None:
    assert {one.name for one in VARIANTS if one.repaired} == {
        "onnx_fp16_mixed", "onnx_int8_mixed", "trt_fp16_mixed", "trt_int8_mixed",
    }  # fmt: skip


def test_every_family_has_one_reference_and_one_to_fall_back_to() -> None:
    assert set(REFERENCES) == set(FAMILIES) == {one.family for one in VARIANTS}
    assert sum(one.source is None for one in VARIANTS) == len(FAMILIES)
    fallbacks = {one.family: one.name for one in VARIANTS if one.fallback}
    assert set(fallbacks) == set(FAMILIES)
    assert sum(one.fallback for one in VARIANTS) == len(FAMILIES)
    assert fallbacks["torch"] == "onnx_fp32"
