"""Reads a CSV with named columns: the labels, and each input as a .npy, in bounded memory."""

import csv
import difflib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case import Case, Input
from scripts.files import writing

ROWS = 4096
TRUTH = {"0": False, "1": True, "false": False, "true": True}


def csv_labels(path: Path, column: str) -> NDArray[Any]:
    """The label column, shape (n,): int64 where every value is a whole number, else text."""
    values = np.array([row[0] for _, rows in _chunks(path, [column]) for row in rows])
    try:
        return values.astype(np.int64)
    except ValueError:
        return values


def write_csv_arrays(case: Case, folder: Path, count: int) -> dict[str, Path]:
    """Write `<input>.npy` of each input into `folder`; input name -> path."""
    assert case.csv is not None
    return {one.name: _write(case.csv, one, folder, count) for one in case.inputs}


def _write(source: Path, wanted: Input, folder: Path, count: int) -> Path:
    if np.prod(wanted.shape) != len(wanted.columns):
        raise click.ClickException(
            f"The input {wanted.name!r} has the shape {wanted.shape} and {len(wanted.columns)} "
            "columns; a sample needs one column for each of its numbers."
        )
    path = folder / f"{wanted.name}.npy"
    with writing(path) as temporary:
        array = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            temporary, mode="w+", dtype=wanted.dtype, shape=(count, *wanted.shape)
        )
        for start, rows in _chunks(source, list(wanted.columns)):
            array[start : start + len(rows)] = _numbers(source, start, rows, wanted)
        array.flush()
    return path


def _numbers(source: Path, start: int, rows: list[list[str]], wanted: Input) -> NDArray[Any]:
    """Rows of text as numbers of the declared dtype, refusing what that dtype cannot hold."""
    numbers: list[float] = []
    for offset, row in enumerate(rows):
        for column, text in zip(wanted.columns, row, strict=True):
            try:
                numbers.append(_number(text.strip(), wanted.dtype))
            except (KeyError, ValueError, OverflowError):
                raise click.ClickException(
                    f"{source}, sample {start + offset}: the column {column!r} holds {text!r}, "
                    f"which is no {wanted.dtype}."
                ) from None
    return np.array(numbers, wanted.dtype).reshape(len(rows), *wanted.shape)


def _number(text: str, dtype: str) -> float:
    """One cell, exactly. Raises KeyError, ValueError or OverflowError where it is no such number."""
    if dtype == "bool":
        return TRUTH[text.lower()]
    if dtype.startswith("float"):
        return float(text)
    whole = int(text) if text.lstrip("+-").isdigit() else int(float(text))
    limits = np.iinfo(dtype)
    if not limits.min <= whole <= limits.max or (whole != float(text) and "." in text):
        raise ValueError(text)
    return whole


def _chunks(path: Path, columns: list[str]) -> Iterator[tuple[int, list[list[str]]]]:
    """(index of the first row, rows of the wanted columns), a few thousand rows at a time."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            places = [_place(path, header, column) for column in columns]
            start = 0
            while rows := list(islice(reader, ROWS)):
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
    return header.index(column)
