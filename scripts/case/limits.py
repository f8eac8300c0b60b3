"""What single values of case.toml must be, and the sentence for one that is not.

Types for the fields of tables.py and forms.py. Says is for a value of the right type that is out of
the limits beside it; a check that raises a ValueError without words asks for that sentence too.
"""

from dataclasses import dataclass
from datetime import date, time
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, Field

LARGEST_BATCH = 65536  # trials hold a whole batch in memory
# Make reads these keys before anything is installed: see facts.py.
ON_A_LINE = (
    '{key} is {value}; write it once, as {key} = "..." on a line of its own, with a file name '
    "of letters, digits and ._-/ (a link will do)."
)
NAMED = "the input name {value} must be of letters, digits and _, and stand only once."
CHANNELS = "a finite number for each channel: 1 number for grey, 3 for rgb"


@dataclass(frozen=True)
class Says:
    """A sentence with {value}, which was written, its {key}, and its {name}: the key with its place."""

    sentence: str


def quoted(value: Any) -> str:
    """The value as a sentence can hold it."""
    text = str(value) if isinstance(value, (date, time)) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _few_decimals(value: float) -> float:
    if Fraction(repr(value)).denominator > 10**9:
        raise ValueError
    return value


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError
    return value


Finite = Annotated[float, Field(allow_inf_nan=False)]
NotZero = Annotated[
    Finite, AfterValidator(_not_zero), Field(json_schema_extra={"not": {"const": 0}})
]
Whole = Annotated[int, Field(gt=0)]
Place = Annotated[
    str,
    Field(pattern=r"^[^\x00]+$"),
    Says("{name} is {value}; it must be the name of a file or a folder."),
]
Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$"), Says(ON_A_LINE)]
InputName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$"), Says(NAMED)]
Precision = Annotated[
    float,
    Field(gt=0, le=1),
    AfterValidator(_few_decimals),
    Says("{name} is {value}; it must lie above 0 and at most at 1, with at most 9 decimals."),
]
Confidence = Annotated[
    float,
    Field(gt=0.5, lt=1),
    Says("{name} is {value}; a confidence must lie above 0.5 and below 1, like 0.95."),
]
FlipRate = Annotated[
    float, Field(gt=0, lt=1), Says("{name} is {value}; it must lie between 0 and 1.")
]
RecallSlack = Annotated[
    float, Field(ge=0, lt=1), Says("{name} is {value}; it must be at least 0 and below 1.")
]
PrecisionSlack = Annotated[float, Field(ge=0, le=1), Says("{name} is {value}; it must be 0 to 1.")]
Budget = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False),
    Says(
        "{name} is {value}; a budget must be a finite number above 0. "
        "Leave it out where there is none."
    ),
]
Weight = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    Says("the weight of {key} in [ranking] is {value}; it must be a finite number of at least 0."),
]
MaxBatch = Annotated[
    int,
    Field(ge=1, le=LARGEST_BATCH),
    Says(f"{{name}} is {{value}}; it must be 1 to {LARGEST_BATCH}."),
]
Column = Annotated[int, Field(ge=0), Says("{name} is {value}; it must be at least 0.")]
Columns = Annotated[list[str], Says("{name} is {value}; it must hold texts.")]
Shape = Annotated[list[Whole], Says("{name} is {value}; it must be whole numbers above 0.")]
Size = Annotated[
    Whole | Annotated[list[Whole], Field(min_length=2, max_length=2)],
    Says("{name} is {value}; give one whole number above 0, or two: [height, width]."),
]
Mean = Annotated[list[Finite], Says(f"{{name}} is {{value}}; it needs {CHANNELS}.")]
Deviation = Annotated[
    list[NotZero], Says(f"{{name}} is {{value}}; it needs {CHANNELS}. They must not be 0.")
]
Divisor = Annotated[NotZero, Says("{name} is {value}; it must be finite, and must not be 0.")]
