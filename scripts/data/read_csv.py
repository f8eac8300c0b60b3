"""Reads a CSV with named columns: the labels, and each input as a .npy, in bounded memory."""

import csv
import difflib
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, Input
from scripts.data.samples import write_header
from scripts.files import writing

ROWS = 4096
TRUTH = {"0": False, "1": True, "false": False, "true": True}


def csv_labels(path: Path, column: str) -> NDArray[Any]:
    """The label column, shape (n,): int64 where every value is a whole number, else text."""
    values = np.array([row[0] for _, rows in _chunks(path, [column]) for row in rows])
    try:
        return values.astype(np.int64)
    except (ValueError, OverflowError):
        return values


def write_csv_arrays(case: Case, folder: Path, count: int) -> dict[str, Path]:
    """Write `<input>.npy` of each input into `folder`; input name -> path."""
    assert case.csv is not None
    paths = {one.name: folder / f"{one.name}.npy" for one in case.inputs}
    with ExitStack() as stack:  # all of them, or none
        for one in case.inputs:
            _write(case.csv, one, stack.enter_context(writing(paths[one.name])), count)
    return paths


def _write(source: Path, wanted: Input, path: Path, count: int) -> None:
    if np.prod(wanted.shape) != len(wanted.columns):
        raise click.ClickException(
            f"The input {wanted.name!r} has the shape {wanted.shape} and {len(wanted.columns)} "
            "columns; a sample needs one column for each of its numbers."
        )
    with open(path, "wb") as file:
        write_header(file, wanted.dtype, (count, *wanted.shape))
        for start, rows in _chunks(source, list(wanted.columns)):
            file.write(_numbers(source, start, rows, wanted).tobytes())


def _numbers(source: Path, start: int, rows: list[list[str]], wanted: Input) -> NDArray[Any]:
    """Rows of text as numbers of the declared dtype, refusing what that dtype cannot hold."""
    numbers: list[float] = []
    for offset, row in enumerate(rows):
        for column, text in zip(wanted.columns, row, strict=True):
            try:
                numbers.append(_number(text.strip(), wanted.dtype))
            except (KeyError, ValueError, ArithmeticError):
                raise _no_number(source, start + offset, column, text, wanted) from None
    with np.errstate(over="ignore"):
        array = np.array(numbers, wanted.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        offset, place = divmod(int(np.argmin(np.isfinite(array))), len(wanted.columns))
        column, text = wanted.columns[place], rows[offset][place]
        raise _no_number(source, start + offset, column, text, wanted)
    return array.reshape(len(rows), *wanted.shape)


def _no_number(
    source: Path, row: int, column: str, text: str, wanted: Input
) -> click.ClickException:
    finite = "finite " * wanted.dtype.startswith("float")
    return click.ClickException(
        f"{source}, sample {row}: the column {column!r} holds {text!r}, which is no "
        f"{finite}{wanted.dtype}."
    )


def _number(text: str, dtype: str) -> float:
    """One cell, exactly. Raises KeyError, ValueError or ArithmeticError where it is none."""
    if dtype == "bool":
        return TRUTH[text.lower()]
    if "_" in text:  # Python's own, in no data
        raise ValueError(text)
    if dtype.startswith("float"):
        return float(text)
    exact = Decimal(text)
    if exact.adjusted() > 20 or exact != int(exact):
        raise ValueError(text)
    limits = np.iinfo(dtype)
    if not limits.min <= exact <= limits.max:
        raise ValueError(text)
    return int(exact)


def _chunks(path: Path, columns: list[str]) -> Iterator[tuple[int, list[list[str]]]]:
    """(index of the first row, rows of the wanted columns), a few thousand rows at a time."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if not header:
                raise click.ClickException(f"{path} is empty; it needs a header and rows.")
            places = [_place(path, header, column) for column in columns]
            start = 0
            filled = (row for row in reader if row)  # blank lines are no rows
            while rows := list(islice(filled, ROWS)):
                for offset, row in enumerate(rows):
                    if len(row) != len(header):
                        raise click.ClickException(
                            f"{path}, sample {start + offset}: {len(row)} values, and the header "
                            f"has {len(header)} columns."
                        )
                yield start, [[row[place] for place in places] for row in rows]
                start += len(rows)
    except FileNotFoundError:
        raise click.ClickException(f"{path} does not exist.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise click.ClickException(f"{path} is not a CSV in UTF-8: {error}.") from None


def _place(path: Path, header: list[str], column: str) -> int:
    if column not in header:
        near = difflib.get_close_matches(column, header, 1, 0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(header[:12])}."
        raise click.ClickException(f"{path} has no column {column!r}; {advice}")
    if header.count(column) > 1:
        raise click.ClickException(f"{path} has the column {column!r} twice; rename or drop one.")
    return header.index(column)
