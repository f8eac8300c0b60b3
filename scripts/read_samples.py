"""Read and check the labelled test data of a case, once, before anything is computed from it.

Reads   case.toml and the data it names
Writes  samples.json (how many, the hash of every data file), labels.npy (uint8, 1 = positive)
        and, for a CSV, <input>.npy, all in the folder of --out
Runs    on the CPU
Usage   python3 -m scripts.read_samples data/digits/case.toml --out results/digits/samples.json
Prints  digits: 899 samples, 86 positive
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case import Case, Input, read_case
from scripts.files import hashes, relative, versions, write_json, writing
from scripts.images import SUFFIXES, decode
from scripts.read_csv import csv_labels, write_csv_arrays
from scripts.samples import load

CHUNK_BYTES = 16 << 20


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, out: Path) -> None:
    case = read_case(case_toml)
    names: list[str] | None = None
    arrays: dict[str, Path] = {}
    if case.images:
        names, values = image_list(case)
        files = [case.images.folder / name for name in names]
        for file in files:
            decode(file, case.images, case.inputs[0])
    elif case.csv:
        values = csv_labels(case.csv, case.labels_column or "")
        files = [case.csv]
    else:
        assert case.labels_file is not None
        arrays = {one.name: one.file for one in case.inputs if one.file}
        values = stored_labels(case.labels_file)
        files = [*arrays.values(), case.labels_file]
    labels = to_binary(values, case)
    if case.csv:
        arrays = write_csv_arrays(case, out.parent, len(labels))
    for one in case.inputs:
        if one.file:
            check_array(load(arrays[one.name]), one, len(labels), arrays[one.name])
    labels_path = out.parent / "labels.npy"
    with writing(labels_path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, labels)
    content: dict[str, Any] = {
        "step": "samples",
        "samples": len(labels),
        "positives": int(labels.sum()),
        "inputs": hashes([case.path, *files]),
        "versions": versions("numpy"),
        "labels": relative(labels_path),
        "arrays": {name: relative(path) for name, path in arrays.items()},
    }
    write_json(out, content | ({"names": names} if names is not None else {}))
    click.echo(f"{case.name}: {len(labels)} samples, {int(labels.sum())} positive")


def image_list(case: Case) -> tuple[list[str], NDArray[Any]]:
    """Names ("class/file.png"), sorted, and the class of each; files that are no image refused."""
    assert case.images is not None
    folder = case.images.folder
    if not folder.is_dir():
        raise click.ClickException(f"{case.path}: the image folder {folder} does not exist.")
    names = []
    for kind in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not kind.is_dir():
            raise click.ClickException(
                f"{kind} lies beside the subfolders of the classes; move it into one, or away."
            )
        for path in sorted(kind.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                raise click.ClickException(
                    f"{path} is a folder inside a class; put its images directly into {kind}."
                )
            if path.suffix.lower() not in SUFFIXES:
                raise click.ClickException(
                    f"{path} is no image that is known by its ending ({', '.join(SUFFIXES)}). "
                    "Take it out of the folder, or convert it."
                )
            names.append(f"{kind.name}/{path.name}")
    if not names:
        raise click.ClickException(
            f"{folder} holds no image; it needs one subfolder per class, with images in each."
        )
    return names, np.array([name.split("/")[0] for name in names])


def stored_labels(path: Path) -> NDArray[Any]:
    """Labels of a .npy file, shape (n,) or (n, 1): whole numbers, bool or text."""
    values = load(path)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise click.ClickException(f"{path} has the shape {values.shape}; labels are (n,).")
    if values.dtype.kind == "f":
        whole = (values == np.floor(values)) & (np.abs(values) < 2.0**53)
        if not whole.all():
            raise click.ClickException(
                f"{path} holds labels that are no whole numbers, {values[~whole][0]} for "
                "one. Labels are classes: save 0 and 1."
            )
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iuU":
        raise click.ClickException(f"{path} has the dtype {values.dtype}; save 0 and 1 as uint8.")
    return values


def to_binary(values: NDArray[Any], case: Case) -> NDArray[np.uint8]:
    """1 where the label is the positive one. Every label must be known, both kinds be there."""
    if len(values) == 0:
        raise click.ClickException(f"{case.path}: the data is empty, there is nothing to compare.")
    positive = str(case.positive) if values.dtype.kind == "U" else case.positive
    negative = case.negative
    if values.dtype.kind == "U" and negative is not None:
        negative = str(negative)
    found = np.unique(values).tolist()
    shown = ", ".join(repr(value) for value in found[:8]) + (", ..." if len(found) > 8 else "")
    if positive not in found:
        raise click.ClickException(
            f"{case.path}: the positive label is {positive!r}, and the labels are {shown}. "
            "Set positive in [labels] to one of them."
        )
    if len(found) == 1:
        raise click.ClickException(
            f"{case.path}: all {len(values)} labels are {found[0]!r}. A precision needs both "
            "classes: add samples of the other one."
        )
    rest = [value for value in found if value != positive]
    known = rest == [negative] or (values.dtype.kind == "U" and negative is None and len(rest) == 1)
    if case.head != "multiclass" and not known:
        raise click.ClickException(
            f"{case.path}: the labels are {shown}, and with the head {case.head!r} they must be "
            f"two: positive = {positive!r} and negative = {negative!r} in [labels]."
        )
    return (values == positive).astype(np.uint8)


def check_array(array: NDArray[Any], wanted: Input, count: int, path: Path) -> None:
    """Raise click.ClickException unless dtype, shape and length are as declared and all finite."""
    if str(array.dtype) != wanted.dtype:
        raise click.ClickException(
            f"{path} has the dtype {array.dtype}, and case.toml declares {wanted.dtype} for the "
            f"input {wanted.name!r}. Save it with that dtype, or declare what it is."
        )
    if array.shape[1:] != wanted.shape or array.ndim == 0:
        raise click.ClickException(
            f"{path} has samples of shape {array.shape[1:]}, and case.toml declares "
            f"{wanted.shape} for the input {wanted.name!r} (without the batch)."
        )
    if len(array) != count:
        raise click.ClickException(
            f"{path} holds {len(array)} samples, and there are {count} labels. "
            "One label belongs to each sample."
        )
    if not array.flags.c_contiguous:
        raise click.ClickException(
            f"{path} is in Fortran order; save it with numpy.ascontiguousarray, sample by sample."
        )
    if array.dtype.kind != "f":
        return
    step = max(1, CHUNK_BYTES // max(1, array[0].nbytes))
    for start in range(0, count, step):
        bad = ~np.isfinite(array[start : start + step]).reshape(min(step, count - start), -1)
        if bad.any():
            row = start + int(np.argmax(bad.any(axis=1)))
            raise click.ClickException(
                f"{path} holds NaN or infinity, first in sample {row}. Repair or remove it."
            )


if __name__ == "__main__":
    main()
