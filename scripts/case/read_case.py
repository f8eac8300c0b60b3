"""Reads and checks data/<case>/case.toml; nothing else reads it.

Every complaint names the file, what was found and what to do. `make new CASE=name` writes a
commented case.toml that explains each key.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from scripts.case.rules import Rules, normalised


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
    family: str  # the kind of model: one of variants.FAMILIES
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
    """Read case.toml. Raises click.ClickException with one to three sentences on anything wrong."""
    text, content = _parse(path)
    from scripts.case.complaints import check
    from scripts.case.facts import check_facts

    try:
        case = _case(path, check(content))
        check_facts(text, content)
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
    return case


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of the file, and its content as TOML."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
        repr(content)  # as complaints quote it: Python writes no number of thousands of digits
    except FileNotFoundError:
        raise click.ClickException(
            f"{path} does not exist; `make new CASE={path.parent.name}` writes one to fill in."
        ) from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} is not valid TOML: {error}.") from None
    except RecursionError:
        raise click.ClickException(f"{path} cannot be read: it is nested too deeply.") from None
    except ValueError:
        raise click.ClickException(
            f"{path} cannot be read: a number in it has thousands of digits."
        ) from None
    return text, content


def _case(path: Path, file: Any) -> Case:
    """What forms.Common and the form of the data hold, with the paths and what follows from it."""
    model, labels, data = file.model, file.labels, file.data
    images, csv = getattr(file, "images", None), getattr(file, "csv", None)
    place = model.factory.rpartition(":")[0]
    if place.endswith(".py"):
        inside(path, place)
    return Case(
        name=path.parent.name,
        path=path,
        precision=Fraction(repr(file.precision)),
        skip=tuple(file.skip),
        family=model.family,
        factory=model.factory,
        weights=inside(path, model.weights),
        weights_key=model.weights_key,
        arguments=model.arguments,
        head=model.head,
        positive_class=1 if model.positive_class is None else model.positive_class,
        output=model.output,
        max_batch=model.max_batch,
        inputs=tuple(_input(path, one) for one in file.inputs),
        labels_file=_place(path, labels, "file"),
        labels_column=getattr(labels, "column", None),
        positive=labels.positive,
        negative=_other(labels.positive) if labels.negative is None else labels.negative,
        images=images and _images(path, images),
        csv=csv and inside(path, csv.file),
        unlabelled=_place(path, data, "unlabelled"),
        groups=_place(path, data, "groups"),
        group_column=getattr(data, "group_column", None),
        rules=_rules(file),
    )


def _other(positive: int | str) -> int | None:
    """The negative label, where it follows from the positive one."""
    return {0: 1, 1: 0}.get(positive) if isinstance(positive, int) else None


def _input(path: Path, one: Any) -> Input:
    columns = tuple(getattr(one, "columns", ()))
    return Input(one.name, tuple(one.shape), one.dtype, _place(path, one, "file"), columns)


def _images(path: Path, table: Any) -> Images:
    def pair(size: Any) -> Any:
        return tuple(size) if isinstance(size, list) else size

    crop = table.centre_crop
    return Images(
        folder=inside(path, table.folder),
        mode=table.mode,
        resize=pair(table.resize),
        centre_crop=(crop, crop) if isinstance(crop, int) else pair(crop),
        interpolation=table.interpolation,
        divide_by=table.divide_by,
        mean=pair(table.mean),
        std=pair(table.std),
        layout=table.layout,
    )


def _rules(file: Any) -> Rules:
    ranking = file.ranking
    weights = dict(ranking.weights) if ranking.weights else {ranking.objective: 1.0}
    return Rules(**dict(file.threshold), **dict(file.gates), weights=normalised(weights))


def _place(path: Path, table: Any, key: str) -> Path | None:
    """The path that a table names under a key, where it has such a key."""
    name = getattr(table, key, None)
    return None if name is None else inside(path, name)


def inside(path: Path, name: str) -> Path:
    """A path of case.toml. It stays in the case's folder, which is what containers see."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(
            f"the path {name!r} leaves the folder {path.parent}; put the file there, or a link to it."
        )
    return path.parent / name
