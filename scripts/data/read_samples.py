"""Read and check the labelled test data of a case, once, before anything is computed from it.

Reads   case.toml and the data it names
Writes  samples.json (how many, the hash of every data file), labels.npy (uint8, 1 = positive),
        groups.npy (int64) where case.toml names groups, and <input>.npy for a CSV, all in the
        folder of --out
Runs    on the CPU
Usage   python3 -m scripts.data.read_samples data/digits/case.toml --out results/digits/samples.json
Prints  digits: 899 samples, 86 positive
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, Input, read_case
from scripts.data.images import SUFFIXES, decode
from scripts.data.read_csv import csv_labels, write_csv_arrays
from scripts.data.samples import load
from scripts.files import relative, write_json, writing
from scripts.step import record, step

CHUNK_BYTES = 16 << 20


@step(__doc__, "case", "out")
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
        values = stored(case.labels_file, "labels", "0 and 1 as uint8")
        files = [*arrays.values(), case.labels_file]
    labels = to_binary(values, case)
    groups = read_groups(case, names, len(labels))
    files += [case.groups] if case.groups else []
    if case.csv:
        arrays = write_csv_arrays(case, out.parent, len(labels))
    for one in case.inputs:
        if one.file:
            check_array(load(arrays[one.name]), one, len(labels), arrays[one.name])
    made = {"labels": labels} | ({"groups": groups} if groups is not None else {})
    for key, values in made.items():
        with writing(out.parent / f"{key}.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, values)
    content: dict[str, Any] = {
        **record("samples", [case.path, *files], ("numpy",)),
        "samples": len(labels),
        "positives": int(labels.sum()),
        **{key: relative(out.parent / f"{key}.npy") for key in made},
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
            check_ending(path)
            names.append(f"{kind.name}/{path.name}")
    if not names:
        raise click.ClickException(
            f"{folder} holds no image; it needs one subfolder per class, with images in each."
        )
    return names, np.array([name.split("/")[0] for name in names])


def check_ending(path: Path) -> None:
    """Raise click.ClickException unless the ending is that of an image."""
    if path.suffix.lower() not in SUFFIXES:
        raise click.ClickException(
            f"{path} is no image that is known by its ending ({', '.join(SUFFIXES)}). "
            "Take it out of the folder, or convert it."
        )


def stored(path: Path, what: str, save: str) -> NDArray[Any]:
    """Labels or groups of a .npy file, shape (n,) or (n, 1): whole numbers, bool or text."""
    values = load(path)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise click.ClickException(f"{path} has the shape {values.shape}; {what} are (n,).")
    if values.dtype.kind == "f":
        whole = (values == np.floor(values)) & (np.abs(values) < 2.0**53)
        if not whole.all():
            raise click.ClickException(
                f"{path} holds {what} that are no whole numbers, {values[~whole][0]} for one. "
                f"Save {save}."
            )
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iuU":
        raise click.ClickException(f"{path} has the dtype {values.dtype}; save {save}.")
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


def read_groups(case: Case, names: list[str] | None, count: int) -> NDArray[np.int64] | None:
    """Which group each sample is of, as codes 0, 1, ... in order of first appearance, (n,)."""
    if case.csv and case.group_column:
        path, values = case.csv, csv_labels(case.csv, case.group_column)
    elif case.groups is None:
        return None
    elif not case.groups.is_file():
        raise click.ClickException(f"{case.path}: the file of groups {case.groups} does not exist.")
    elif names is not None:
        path, values = case.groups, image_groups(case.groups, names)
    else:
        path, values = case.groups, stored(case.groups, "groups", "whole numbers or text")
    if len(values) != count:
        raise click.ClickException(
            f"{path} holds {len(values)} groups, and there are {count} labels. "
            "Each sample is of one group."
        )
    if values.dtype.kind == "U":
        values = np.char.strip(values)
        if (missing := values == "").any():
            raise click.ClickException(
                f"{path} names no group for sample {int(np.argmax(missing))}. Each sample is of one "
                "group; give those that stand alone a name of their own."
            )
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    if len(first) == 1:
        raise click.ClickException(
            f"{path} holds the group {values.tolist()[0]!r} only, and no sample could be held out: a "
            "group is never split. Add samples of others, or remove the groups from [data]."
        )
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


def image_groups(path: Path, names: list[str]) -> NDArray[Any]:
    """The column `group` of a CSV whose column `file` holds each of `names` once, in their order."""
    files, groups = csv_labels(path, "file").astype(str).tolist(), csv_labels(path, "group")
    rows: dict[str, int] = {}
    for row, file in enumerate(files):
        if file in rows:
            raise click.ClickException(f"{path} names {file!r} twice; an image is of one group.")
        rows[file] = row
    for lacking, place in ((set(names) - rows.keys(), "row"), (rows.keys() - set(names), "image")):
        if lacking:
            raise click.ClickException(
                f"{path}: there is no {place} of {min(lacking)!r} ({len(lacking)} in all). It needs "
                "one row for each image, with file as class/name.png."
            )
    return groups[[rows[name] for name in names]]


def check_array(
    array: NDArray[Any], wanted: Input, count: int, path: Path, others: str = ""
) -> None:
    """Raise click.ClickException unless dtype, shape and length are as declared and all finite.

    `others` says what else holds `count` samples, where that is not the labels.
    """
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
            f"{path} holds {len(array)} samples, and "
            + (others or f"there are {count} labels. One label belongs to each sample.")
        )
    if not array.flags.c_contiguous:
        raise click.ClickException(
            f"{path} is in Fortran order; save it with numpy.ascontiguousarray, sample by sample."
        )
    if array.dtype.kind != "f":
        return
    step = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, count, step):
        bad = ~np.isfinite(array[start : start + step]).reshape(min(step, count - start), -1)
        if bad.any():
            row = start + int(np.argmax(bad.any(axis=1)))
            raise click.ClickException(
                f"{path} holds NaN or infinity, first in sample {row}. Repair or remove it."
            )


if __name__ == "__main__":
    main()
