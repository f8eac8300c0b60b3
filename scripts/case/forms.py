"""case.toml as a whole, declared once for each form of its data: arrays, images or a CSV.

Which form a file has is seen from its tables: [images], [csv], or neither.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from scripts.case.data_tables import (
    ArrayInput,
    ArrayLabels,
    Csv,
    CsvData,
    CsvInput,
    CsvLabels,
    Data,
    ImageInput,
    ImageLabels,
    Images,
)
from scripts.case.limits import NAMED, Precision, Says, quoted
from scripts.case.tables import Gates, Model, Ranking, Table, Threshold
from scripts.variants import VARIANTS

SKIPPED = tuple(variant.name for variant in VARIANTS if variant.source)
INPUTS = (
    "One [[inputs]] table for each input of forward(): by name where the names are those of its "
    "parameters, else in this order."
)


class Common(Table):
    """What does not depend on the form of the data."""

    precision: Precision = Field(
        0.9, description="wanted share of right answers among the positive verdicts"
    )
    skip: list[Literal[SKIPPED]] = Field(  # type: ignore[valid-type]
        [], description="variants to leave out", examples=[["onnx_fp16"]]
    )
    model: Model
    threshold: Threshold = Field({}, validate_default=True)
    gates: Gates = Field({}, validate_default=True)
    ranking: Ranking = Field({}, validate_default=True)


AnyInput = TypeVar("AnyInput", bound=ImageInput)


def _distinct(inputs: list[AnyInput]) -> list[AnyInput]:
    names = [one.name for one in inputs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(NAMED.format(value=quoted(name)))
    return inputs


NO_INPUT = Says("inputs is empty; write one [[inputs]] table for each input.")


class ArraysCase(Common):
    """Arrays: one .npy for each input, and one for the labels. The first axis is the sample."""

    data: Data = Field({}, validate_default=True)
    inputs: Annotated[
        list[ArrayInput], Field(min_length=1), AfterValidator(_distinct), NO_INPUT
    ] = Field(description=INPUTS)
    labels: ArrayLabels


class ImagesCase(Common):
    """Images: a folder with one subfolder for each class. Steps are done in the order given here."""

    data: Data = Field({}, validate_default=True)
    images: Images
    inputs: Annotated[
        list[ImageInput],
        Field(min_length=1, max_length=1),
        Says("with [images] there is one [[inputs]] with name, shape and dtype."),
    ] = Field(description=INPUTS)
    labels: ImageLabels

    @model_validator(mode="before")
    @classmethod
    def _check_one_form(cls, content: dict[str, Any]) -> dict[str, Any]:
        if "csv" in content:
            raise ValueError("[images] and [csv] are both there; keep the one that holds the data.")
        return content

    @model_validator(mode="after")
    def _check_dtype(self) -> "ImagesCase":
        scaled = [
            key for key in ("divide_by", "mean", "std") if getattr(self.images, key) is not None
        ]
        only = self.inputs[0]
        if scaled and not only.dtype.startswith("float"):
            raise ValueError(
                f"{scaled[0]} in [images] gives fractions, and the input {only.name!r} is "
                f"{only.dtype}; declare float32 or float16, or leave {scaled[0]} out."
            )
        return self


class CsvCase(Common):
    """A CSV with a header. Each input takes its numbers from the columns listed, row by row."""

    data: CsvData = Field({}, validate_default=True)
    csv: Csv
    inputs: Annotated[list[CsvInput], Field(min_length=1), AfterValidator(_distinct), NO_INPUT] = (
        Field(description=INPUTS)
    )
    labels: CsvLabels


def form_of(content: dict[str, Any]) -> str:
    """The form of the data, by the tables that are there."""
    return next((form for form in ("images", "csv") if form in content), "arrays")


FORMS: dict[str, type[Common]] = {"arrays": ArraysCase, "images": ImagesCase, "csv": CsvCase}
AnyCase = Annotated[
    Annotated[ArraysCase, Tag("arrays")]
    | Annotated[ImagesCase, Tag("images")]
    | Annotated[CsvCase, Tag("csv")],
    Discriminator(form_of),
]
