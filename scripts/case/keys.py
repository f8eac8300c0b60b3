"""The values that some keys of case.toml may have. tables.py says what they mean."""

from typing import Literal, get_args

Dtype = Literal["float32", "float16", "uint8", "int32", "int64", "bool"]
Head = Literal["logit", "two_logits", "multiclass", "probability"]
Mode = Literal["grey", "rgb"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Layout = Literal["chw", "hwc"]

DTYPES: tuple[str, ...] = get_args(Dtype)
HEADS: tuple[str, ...] = get_args(Head)
