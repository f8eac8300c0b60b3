"""Read and check the samples without labels that a case names, in the form of its test data.

Reads   case.toml and what `unlabelled` in [data] names: a folder with a .npy of the same file name
        for each input, a folder of images (in subfolders or not), or a CSV with the same columns
Writes  traffic.json (how many, the hash of every file) and, for a CSV, <input>.traffic.npy beside it
Runs    on the CPU
Usage   python3 -m scripts.data.read_traffic data/digits/case.toml --out results/digits/traffic.json
Prints  digits: 12000 unlabelled samples
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import Case, read_case
from scripts.data.images import decode
from scripts.data.read_csv import csv_labels, write_csv_arrays
from scripts.data.read_samples import check_array, check_ending
from scripts.data.samples import load
from scripts.files import relative, write_json
from scripts.step import record, step


@step(__doc__, "case", "out")
def main(case_toml: Path, out: Path) -> None:
    case = read_case(case_toml)
    place = case.unlabelled
    if place is None:
        raise click.ClickException(
            f"{case.path} names no samples without labels; set unlabelled in [data] to where they "
            "are."
        )
    check_place(case, place)
    images: dict[str, Any] = {}
    if case.images:
        names = image_names(place)
        files, arrays, count = [place / name for name in names], {}, len(names)
        images = {"folder": relative(place), "names": names}
        for file in files:
            decode(file, case.images, case.inputs[0])
    elif case.csv:
        files, count = [place], len(csv_labels(place, case.inputs[0].columns[0]))
        check_count(place, count)
        arrays = csv_arrays(case, place, out.parent, count)
    else:
        arrays = stored_arrays(case, place)
        files = list(arrays.values())
        first = load(files[0])
        count = len(first) if first.ndim else 0
        told = f"{files[0]} holds {count}. A sample has all inputs."
        for one in case.inputs:
            check_array(load(arrays[one.name]), one, count, arrays[one.name], told)
    check_count(place, count)
    content = {
        **record("traffic", [case.path, *files], ("numpy",)),
        "samples": count,
        "arrays": {name: relative(path) for name, path in arrays.items()},
    }
    write_json(out, content | images)
    click.echo(f"{case.name}: {count} unlabelled samples")


def check_place(case: Case, place: Path) -> None:
    """Raise click.ClickException unless it is there, of the right kind, and not the labelled data."""
    if not place.exists():
        raise click.ClickException(
            f"{case.path}: the unlabelled data {place} does not exist. Put it there, or a link to "
            "it, or take unlabelled out of [data]."
        )
    if place.is_dir() != (case.csv is None):
        found, wanted = ("folder", "CSV") if case.csv else ("file", "folder")
        raise click.ClickException(
            f"{case.path}: the unlabelled data {place} is a {found}, and must be a {wanted}, as the "
            "test data is."
        )
    if case.images:
        here, other = place.resolve(), case.images.folder.resolve()
        same = here.is_relative_to(other) or other.is_relative_to(here)
    else:
        pairs = [(place / one.file.name, one.file) for one in case.inputs if one.file]
        pairs += [(place, case.csv)] if case.csv else []
        same = any(ours.resolve() == theirs.resolve() for ours, theirs in pairs)
    if same:
        raise click.ClickException(
            f"{case.path}: the unlabelled data {place} is the labelled test data, or has it inside. "
            "It would be counted twice: name other samples."
        )


def check_count(place: Path, count: int) -> None:
    """Raise click.ClickException without a sample."""
    if not count:
        raise click.ClickException(
            f"{place} holds no sample, so nothing would be compared. Put samples there, or take "
            "unlabelled out of [data]."
        )


def image_names(folder: Path) -> list[str]:
    """Names ("file.png" or "subfolder/file.png"), sorted; files that are no image are refused."""
    names = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        for one in path.iterdir() if path.is_dir() else (path,):
            if one.name.startswith("."):
                continue
            if one.is_dir():
                raise click.ClickException(
                    f"{one} is a folder inside a subfolder; put its images directly into {path}."
                )
            check_ending(one)
            names.append(one.relative_to(folder).as_posix())
    return sorted(names)


def csv_arrays(case: Case, source: Path, folder: Path, count: int) -> dict[str, Path]:
    """Write `<input>.traffic.npy` of each input into `folder`; input name -> path."""
    renamed = tuple(replace(one, name=f"{one.name}.traffic") for one in case.inputs)
    written = write_csv_arrays(replace(case, csv=source, inputs=renamed), folder, count)
    return {one.name: written[f"{one.name}.traffic"] for one in case.inputs}


def stored_arrays(case: Case, folder: Path) -> dict[str, Path]:
    """Input name -> the .npy of the same file name in `folder`, which holds no other."""
    arrays = {one.name: folder / one.file.name for one in case.inputs if one.file}
    if len(set(arrays.values())) < len(arrays):
        raise click.ClickException(
            f"{case.path}: two inputs are files of one name, {', '.join(map(str, arrays.values()))} "
            "of the unlabelled data; name the files in [[inputs]] differently."
        )
    for path in sorted(folder.glob("*.npy")):
        if path not in arrays.values() and not path.name.startswith("."):
            raise click.ClickException(
                f"{path} is of no input, and would not be read; the files wanted are "
                f"{', '.join(path.name for path in arrays.values())}. Rename it, or move it away."
            )
    return arrays


if __name__ == "__main__":
    main()
