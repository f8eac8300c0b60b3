"""Proof of precision of an engine, from layers as TensorRT 10 and 11 list them.

The entries follow exports that users of TensorRT published; no engine can be built here.
"""

from pathlib import Path
from typing import Any

import click
import pytest

from scripts.backends.tensorrt.prove import check, check_fit, shares, type_kind
from scripts.case.read_case import read_case
from tests.toy_case import TOML


def layer(kind: str, *types: str, key: str = "Format/Datatype", **more: Any) -> dict[str, Any]:
    """A layer whose last type is its output's."""
    tensors = [{"Name": "t", "Location": "Device", "Dimensions": [1, 3], key: one} for one in types]
    entry = {"Name": "n", "LayerType": kind, "Inputs": tensors[:-1], "Outputs": tensors[-1:]}
    return entry | {"ParameterType": kind, "TacticValue": "0x0", "StreamId": 0} | more


FP32, FP16 = "Row major linear FP32", "Row major linear FP16 format"
WIDE = "Channel major FP16 format where channel % 8 == 0"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FP32, "float32"),
        (FP16, "float16"),
        (WIDE, "float16"),
        ("Half", "float16"),
        ("Float", "float32"),
        ("FP16", "float16"),
        ("BFloat16", "bfloat16"),
        ("Row major linear BFloat16 format", "bfloat16"),
        ("BF16", "bfloat16"),
        ("FP8", "float8"),
        ("Row major linear FP8 format", "float8"),
        ("Int64", None),
        ("Row major linear BOOL", None),
        ("N/A due to dynamic shapes", None),
        ("", None),
    ],
)
def test_every_spelling_of_a_type(text: str, kind: str | None) -> None:
    assert type_kind(text) == kind


def test_a_float16_engine_of_tensorrt_10() -> None:
    found = shares(
        [
            layer("Reformat", FP32, FP16),
            layer("CaskConvolution", FP16, WIDE, Weights={"Type": "Half", "Count": 9408}),
            layer("kgen", "Half", "Bool", "Half"),
            layer("gemm", "Half", "Float"),  # the conversion of the output, fused
            layer("NoOp", FP32, FP32),
            layer("SoftMax", FP32, FP32),
        ]
    )
    assert (found["nodes"], found["nodes_float16"], found["undetermined"]) == (4, 3, 0)
    assert found["share_float16"] == 0.75
    check(found, "float16", "trt_fp16", Path("model.plan"))


def test_tensorrt_11_splits_format_and_type() -> None:
    found = shares([layer("kgen", "Half", "Half", key="Datatype", Format="Row major linear")])
    assert (found["nodes"], found["nodes_float16"]) == (1, 1)


def test_where_tensors_say_nothing_the_weights_do() -> None:
    unknown = "N/A due to dynamic shapes"
    found = shares(
        [
            layer("CaskConvolution", unknown, unknown, Weights={"Type": "Half", "Count": 9}),
            layer("PointWiseV2", unknown, unknown),
        ]
    )
    assert (found["nodes"], found["nodes_float16"], found["undetermined"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("wanted", "types", "words"),
    [
        ("float16", (FP32, FP32), "none of its 1 layers computes in float16"),
        ("float32", (FP16, FP16), "1 of its 1 layers compute in float16"),
        ("float16", ("N/A due to dynamic shapes",), "names no type for any of 1 layers"),
        ("float32", ("N/A due to dynamic shapes",), "names no type for any of 1 layers"),
    ],
)
def test_an_engine_that_is_not_what_it_is_called_is_refused(
    wanted: str, types: tuple[str, ...], words: str
) -> None:
    found = shares([layer("CaskConvolution", *types)])
    with pytest.raises(click.ClickException) as caught:
        check(found, wanted, "trt_x", Path("model.plan"))
    assert words in caught.value.message


def test_only_conversions_to_half_prove_nothing() -> None:
    """An engine that casts to half and back, and computes in float32 between."""
    found = shares(
        [layer("Reformat", FP32, FP16), layer("gemm", FP32, FP32), layer("Cast", FP16, FP32)]
    )
    assert found["nodes_float16"] == 0


def test_names_alone_are_no_proof() -> None:
    with pytest.raises(ValueError, match="without detail"):
        shares(["conv1 + relu1"])


@pytest.fixture
def case(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/case.toml").write_text(TOML)
    return read_case(tmp_path / "toy/case.toml")


GOOD = {"x": ("float32", [-1, 2], 4), "output": ("float32", [-1, 1], -1)}


def test_an_engine_that_fits(case) -> None:  # type: ignore[no-untyped-def]
    check_fit(GOOD, case, Path("model.plan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": ("float16", [-1, 2], 4)}, "the input 'x' is ('float16', [-1, 2], 4)"),
        ({"x": ("float32", [1, 2], 4)}, "the input 'x'"),
        ({"x": ("float32", [-1, 2], 2)}, "the input 'x'"),
        ({"output": ("float16", [-1, 1], -1)}, "a single float32 one is needed"),
        ({"more": ("float32", [-1, 1], -1)}, "a single float32 one is needed"),
    ],
)
def test_an_engine_of_another_model_is_refused(case, change, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(click.ClickException) as caught:
        check_fit(GOOD | change, case, Path("model.plan"))
    assert words in caught.value.message
