"""Reads and checks data/<case>/case.toml; nothing else reads it.

Every complaint names the file, what was found and what to do. `make new CASE=name` writes a
commented case.toml that explains each key.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import click

from scripts.case.keys import (
    DTYPES,
    HEADS,
    NAME,
    check,
    check_facts,
    inside,
    is_finite,
    one_of,
    whole_numbers,
)
from scripts.case.rules import Rules, read_rules
from scripts.variants import VARIANTS

LARGEST_BATCH = 65536  # trials hold a whole batch in memory
# An input of a CSV becomes a file of the results: names that others have there.
TAKEN = ("labels", "groups", *(variant.name for variant in VARIANTS))


@dataclass(frozen=True)
class Input:
    """One named input of the model: `shape` is that of one sample, without the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path | None
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Images:
    """A folder of images with one subfolder per class, and how to make an array of one."""

    folder: Path
    mode: str  # "grey" or "rgb"
    resize: int | tuple[int, int] | None  # shorter side, or (height, width), in pixels
    centre_crop: tuple[int, int] | None  # (height, width)
    interpolation: str
    divide_by: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    layout: str  # "chw" or "hwc"


@dataclass(frozen=True)
class Case:
    """One trained model with its labelled test data, as case.toml describes it."""

    name: str
    path: Path
    precision: Fraction
    skip: tuple[str, ...]
    factory: str
    weights: Path
    weights_key: str | None
    arguments: dict[str, Any]
    head: str
    positive_class: int
    output: int | str | None
    max_batch: int
    inputs: tuple[Input, ...]
    labels_file: Path | None
    labels_column: str | None
    positive: int | str
    negative: int | str | None
    images: Images | None
    csv: Path | None
    unlabelled: Path | None  # samples without labels, in the form of the test data
    groups: Path | None  # where each sample comes from
    group_column: str | None  # the same, of a CSV
    rules: Rules

    @property
    def folder(self) -> Path:
        """The folder of the case; the paths in case.toml are relative to it."""
        return self.path.parent


def read_case(path: Path) -> Case:
    """Read case.toml. Raises click.ClickException with one sentence on anything wrong."""
    try:
        try:
            import tomllib
        except ModuleNotFoundError:  # Python 3.10
            import tomli as tomllib
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except FileNotFoundError:
        raise click.ClickException(
            f"{path} does not exist; `make new CASE={path.parent.name}` writes one to fill in."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} is not valid TOML: {error}.") from None
    try:
        case = _case(path, content)
        check_facts(text, content)
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
    return case


def _case(path: Path, content: dict[str, Any]) -> Case:
    check(content, "")
    model, labels = content["model"], content["labels"]
    check(model, "model")
    check(labels, "labels")
    one_of("head", model["head"], HEADS)
    precision = content.get("precision", 0.9)
    if not 0 < precision <= 1 or Fraction(repr(precision)).denominator > 10**9:
        raise ValueError(
            f"precision is {precision}; it must lie above 0 and at most at 1, with at most 9 decimals."
        )
    if not 1 <= model["max_batch"] <= LARGEST_BATCH:
        raise ValueError(f"max_batch is {model['max_batch']}; it must be 1 to {LARGEST_BATCH}.")
    names = [variant.name for variant in VARIANTS[1:]]
    for name in content.get("skip", []):
        one_of("skip", name, names)
    images = _images(path, content["images"]) if "images" in content else None
    csv = None
    if "csv" in content:
        check(content["csv"], "csv")
        csv = inside(path, content["csv"]["file"])
    if images and csv:
        raise ValueError("[images] and [csv] are both there; keep the one that holds the data.")
    inputs = _inputs(path, content["inputs"], images is not None, csv is not None)
    scaled = [key for key in ("divide_by", "mean", "std") if key in content.get("images", {})]
    if scaled and not inputs[0].dtype.startswith("float"):
        raise ValueError(
            f"{scaled[0]} in [images] gives fractions, and the input {inputs[0].name!r} is "
            f"{inputs[0].dtype}; declare float32 or float16, or leave {scaled[0]} out."
        )
    place = model["factory"].rpartition(":")[0]
    if place.endswith(".py"):
        inside(path, place)
    positive = labels.get("positive", 1)
    negative = labels.get("negative", {0: 1, 1: 0}.get(positive))
    _check_labels(labels, images is not None, csv is not None)
    data = content.get("data", {})
    _check_data(data, csv is not None)
    return Case(
        name=path.parent.name,
        path=path,
        precision=Fraction(repr(precision)),
        skip=tuple(content.get("skip", [])),
        factory=model["factory"],
        weights=inside(path, model["weights"]),
        weights_key=model.get("weights_key"),
        arguments=model.get("arguments", {}),
        head=model["head"],
        positive_class=_positive_class(model),
        output=model.get("output"),
        max_batch=model["max_batch"],
        inputs=inputs,
        labels_file=inside(path, labels["file"]) if "file" in labels else None,
        labels_column=labels.get("column"),
        positive=positive,
        negative=negative,
        images=images,
        csv=csv,
        unlabelled=inside(path, data["unlabelled"]) if "unlabelled" in data else None,
        groups=inside(path, data["groups"]) if "groups" in data else None,
        group_column=data.get("group_column"),
        rules=read_rules(content),
    )


def _positive_class(model: dict[str, Any]) -> int:
    if model["head"] == "multiclass" and "positive_class" not in model:
        raise ValueError("head is 'multiclass': positive_class must say which class is positive.")
    value: int = model.get("positive_class", 1)
    if value < 0:
        raise ValueError(f"positive_class is {value}; it must be at least 0.")
    if model["head"] in ("logit", "two_logits") and value > 1:
        raise ValueError(
            f"positive_class is {value}; with the head {model['head']!r} it is 0 or 1."
        )
    return value


def _inputs(path: Path, tables: list[Any], images: bool, csv: bool) -> tuple[Input, ...]:
    if not tables:
        raise ValueError("inputs is empty; write one [[inputs]] table for each input.")
    key = "columns" if csv else "file"
    result: list[Input] = []
    for table in tables:
        check(table, "inputs")
        name = table["name"]
        one_of("dtype", table["dtype"], DTYPES)
        if not NAME.fullmatch(name) or name in [other.name for other in result]:
            raise ValueError(
                f"the input name {name!r} must be of letters, digits and _, and stand only once."
            )
        if images and (len(tables) > 1 or "file" in table or "columns" in table):
            raise ValueError("with [images] there is one [[inputs]] with name, shape and dtype.")
        if not images and (key not in table or len(table) != 4):
            raise ValueError(f"the input {name!r} needs name, shape, dtype and {key!r}, no more.")
        if csv and name in TAKEN:
            raise ValueError(f"an input of a CSV cannot be called {name!r}; give it another name.")
        columns = table.get("columns", [])
        if not all(isinstance(column, str) for column in columns):
            raise ValueError(f"columns of the input {name!r} is {columns!r}; it must hold texts.")
        shape = whole_numbers(f"shape of the input {name!r}", table["shape"])
        if csv and prod(shape) != len(columns):
            raise ValueError(
                f"the input {name!r} has the shape {shape} and {len(columns)} columns; a sample "
                "needs one column for each of its numbers."
            )
        file = inside(path, table["file"]) if "file" in table else None
        result.append(Input(name, shape, table["dtype"], file, tuple(columns)))
    return tuple(result)


def _check_labels(labels: dict[str, Any], images: bool, csv: bool) -> None:
    key = None if images else "column" if csv else "file"
    for other in ("file", "column"):
        if (other in labels) != (other == key):
            where = "[images]" if images else "[csv]" if csv else ".npy files"
            verb = "needs" if other == key else "has no use for"
            raise ValueError(f"[labels] {verb} {other!r} when the data is {where}.")
    if images and not isinstance(labels.get("positive"), str):
        raise ValueError("[labels] positive must name the subfolder of the positive class.")


def _check_data(table: dict[str, Any], csv: bool) -> None:
    check(table, "data")
    if csv and "groups" in table:
        raise ValueError("[data] has no use for 'groups' when the data is [csv]; use group_column.")
    if not csv and "group_column" in table:
        raise ValueError(
            "[data] has no use for 'group_column' when the data is no [csv]; name a file as groups."
        )


def _images(path: Path, table: dict[str, Any]) -> Images:
    check(table, "images")
    one_of("mode", table["mode"], ("grey", "rgb"))
    one_of("layout", table.get("layout", "chw"), ("chw", "hwc"))
    interpolation = table.get("interpolation", "bilinear")
    one_of("interpolation", interpolation, ("nearest", "bilinear", "bicubic", "lanczos"))
    channels = 1 if table["mode"] == "grey" else 3
    per_channel = {}
    for key in ("mean", "std"):
        values = table.get(key)
        if values is not None and (
            len(values) != channels or not all(is_finite(v) for v in values)
        ):
            raise ValueError(
                f"{key} in [images] is {values!r}; it needs {channels} number(s), all finite."
            )
        per_channel[key] = None if values is None else tuple(float(v) for v in values)
    if not is_finite(table.get("divide_by", 1)):
        raise ValueError(f"divide_by in [images] is {table['divide_by']}; it must be finite.")
    if table.get("divide_by") == 0 or 0 in (per_channel["std"] or ()):
        raise ValueError("divide_by and std in [images] must not be 0.")
    resize = _size("resize", table.get("resize"))
    crop = _size("centre_crop", table.get("centre_crop"))
    return Images(
        folder=inside(path, table["folder"]),
        mode=table["mode"],
        resize=resize,
        centre_crop=(crop, crop) if isinstance(crop, int) else crop,
        interpolation=interpolation,
        divide_by=table.get("divide_by"),
        mean=per_channel["mean"],
        std=per_channel["std"],
        layout=table.get("layout", "chw"),
    )


def _size(key: str, value: Any) -> int | tuple[int, int] | None:
    if value is None:
        return None
    sizes = whole_numbers(f"{key} in [images]", value if isinstance(value, list) else [value])
    if isinstance(value, list) and len(sizes) != 2:
        raise ValueError(f"{key} in [images] is {value!r}; give one number or [height, width].")
    return (sizes[0], sizes[1]) if isinstance(value, list) else sizes[0]
