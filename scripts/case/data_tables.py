"""The tables of case.toml that say where the samples are and how they are read, declared once.

Which of them a file has depends on the form of its data: see forms.py.
"""

from math import prod
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from scripts.case.keys import DTYPES, Dtype, Interpolation, Layout, Mode
from scripts.case.limits import (
    Columns,
    Deviation,
    Divisor,
    InputName,
    Mean,
    Place,
    Plain,
    Shape,
    Size,
    quoted,
)
from scripts.case.tables import Table
from scripts.variants import VARIANTS

# An input of a CSV becomes a file of the results: names that others have there.
TAKEN = ("labels", "groups", *(variant.name for variant in VARIANTS))


# ---- [[inputs]] ----------------------------------------------------------------------------------


class ImageInput(Table):
    """The input of the model that takes the images."""

    name: InputName = Field(
        description="letters, digits and _, beginning with a letter", examples=["x"]
    )
    shape: Shape = Field(
        description="that of one sample, without the batch", examples=[[3, 224, 224]]
    )
    dtype: Dtype = Field(
        description=f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}", examples=["float32"]
    )


class ArrayInput(ImageInput):
    """An input of the model, with its samples in a .npy."""

    file: Place = Field(description="a .npy with its samples", examples=["inputs.npy"])


class CsvInput(ImageInput):
    """An input of the model, with the columns that hold its numbers."""

    shape: Shape = Field(description="that of one sample, without the batch", examples=[[2]])
    columns: Columns = Field(
        description="one for each number of a sample, row by row", examples=[["age", "weight"]]
    )

    @model_validator(mode="after")
    def _check(self) -> "CsvInput":
        if self.name in TAKEN:
            raise ValueError(
                f"an input of a CSV cannot be called {self.name!r}; give it another name."
            )
        if prod(self.shape) != len(self.columns):
            raise ValueError(
                f"the input {self.name!r} has the shape {quoted(self.shape)} and "
                f"{len(self.columns)} columns; a sample needs one column for each of its numbers."
            )
        return self


# ---- [labels] and [data] -------------------------------------------------------------------------

Positive = Annotated[int | str, Field(description='the label that stands for "yes"')]
Negative = Annotated[
    int | str | None,
    Field(description="the other one, where the labels are not 0 and 1", examples=[0]),
]


class ArrayLabels(Table):
    """The right answers, in a .npy."""

    file: Place = Field(
        description="a .npy with one label for each sample, like 0 and 1", examples=["labels.npy"]
    )
    positive: Positive = 1
    negative: Negative = None


class CsvLabels(Table):
    """The right answers, in a column."""

    column: str = Field(description="the column that holds them", examples=["label"])
    positive: Positive = 1
    negative: Negative = None


class ImageLabels(Table):
    """The right answers: the subfolder that an image lies in."""

    positive: str = Field(
        description='the subfolder of the class that stands for "yes"', examples=["yes"]
    )
    negative: Negative = None

    @field_validator("positive", mode="before")
    @classmethod
    def _check_positive(cls, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("[labels] positive must name the subfolder of the positive class.")
        return value


class Unlabelled(Table):
    """Samples without labels."""

    unlabelled: Plain | None = Field(
        None,
        description="samples without labels, on which flips are counted too: a folder with a .npy "
        "of the same file name for each input, a folder of images, or a CSV",
        examples=["traffic"],
    )


class Data(Unlabelled):
    """Samples without labels, and where each sample comes from."""

    groups: Place | None = Field(
        None,
        description="the patient, video or user of each sample, numbers or text: no group is both "
        "tuned and judged on. With [images]: a CSV with the header file,group, and files as "
        '"class/name.png"',
        examples=["groups.npy"],
    )


class CsvData(Unlabelled):
    """Samples without labels, and where each sample comes from."""

    group_column: str | None = Field(
        None, description="the same with [csv]: the name of a column", examples=["patient"]
    )


# ---- [images] and [csv] --------------------------------------------------------------------------


class Images(Table):
    """A folder of images, and how an array is made of one."""

    folder: Place = Field(description="with one subfolder for each class", examples=["images"])
    mode: Mode = Field(
        description='"grey": one channel; "rgb": three, grey images repeated', examples=["rgb"]
    )
    resize: Size | None = Field(
        None, description="the shorter side, or [height, width]", examples=[256]
    )
    centre_crop: Size | None = Field(None, description="or [height, width]", examples=[224])
    interpolation: Interpolation = Field(
        "bilinear", description="of resize: nearest, bilinear, bicubic or lanczos"
    )
    divide_by: Divisor | None = Field(None, description="pixels are 0 to 255", examples=[255])
    mean: Mean | None = Field(
        None, description="subtracted, for each channel", examples=[[0.485, 0.456, 0.406]]
    )
    std: Deviation | None = Field(
        None, description="then divided by", examples=[[0.229, 0.224, 0.225]]
    )
    layout: Layout = Field("chw", description='or "hwc"')

    @field_validator("mean", "std")
    @classmethod
    def _check_channels(cls, values: Any, info: ValidationInfo) -> Any:
        if values and len(values) != {"grey": 1}.get(info.data.get("mode", ""), 3):
            raise ValueError
        return values


class Csv(Table):
    """A table of numbers, with a header."""

    file: Place = Field(description="with a header", examples=["data.csv"])
