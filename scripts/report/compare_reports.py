"""Say what changed between two reports of a case: what to run after an upgrade of the containers.

Where the data is the same, verdicts are compared sample by sample: all of them, each by the threshold
its report deploys, where the logits of both runs lie beside the reports; else those that flip, which
the reports list. Times are told where p50 changed by more than 5 %, in Triton by more than 10 %.

Reads   two report.json; beside each, where they lie there, <variant>.logits.npy, with
        <variant>.verdicts.json, which says whether they are of that report, and samples.json, for names
Runs    anywhere
Usage   python3 -m scripts.report.compare_reports old/report.json results/digits/report.json
        (or: make compare OLD=old/report.json)
Prints  what changed, a line each, and last what was compared:
        torch: 2.13.0 -> 2.14.0
        onnx_fp16: flips: 0 of 899 -> 1 of 899
        onnx_fp16: verdicts that changed: 1 of 899
          sample 68: logit -1.40424299 negative -> -1.39006698 positive
        Compared: 899 samples one by one in 5 variants.
"""

import os
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import load
from scripts.files import read_json, sha256
from scripts.release.conclude import SCHEMA
from scripts.report.changes import (
    Report,
    Row,
    both,
    data,
    decisions,
    figures,
    hash_of,
    places,
    presence,
    rules,
    versions,
)
from scripts.verdicts.thresholds import is_positive

LISTED = 20  # samples, of each variant
NEEDED = (
    "case", "data", "inputs", "samples", "positives", "wanted_precision", "policies", "rules",
    "threshold", "variants", "recommendation", "promotion", "decision", "conditions",
)  # fmt: skip

Logits = NDArray[np.float32]
Pairs = dict[
    str, tuple[Logits, Logits]
]  # variant -> its logits in the old run and in the new, (n,)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("old")
@click.argument("new", type=click.Path(path_type=Path))
def main(old: str, new: Path) -> None:
    if not old:
        raise click.ClickException(
            "OLD is empty: say which report to compare with. Run: make compare OLD=path/report.json"
        )
    paths = (Path(old), new)
    before, after = (read_report(path) for path in paths)
    if before["case"] != after["case"]:
        raise click.ClickException(
            f"{old} is of the case {before['case']} and {new} of {after['case']}. "
            "Compare two reports of one case."
        )
    if os.path.samefile(*paths):
        raise click.ClickException(
            f"{old} and {new} are the same file. Keep a copy of the folder before make writes it anew."
        )
    pairs = read_pairs((before, after), paths)
    for line in differences(before, after, pairs, read_names(paths)):
        click.echo(line)


def read_report(path: Path) -> Report:
    """A report of this schema. Raises click.ClickException with a sentence."""
    if not path.is_file():
        inside = " inside the project, which is all that a container sees"
        raise click.ClickException(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; name a report.json"
            f"{inside if os.environ.get('VERDICT_IMAGE') else ''}."
        )
    try:
        report = read_json(path)
    except (OSError, click.ClickException):
        raise click.ClickException(f"{path} is no report.json: it holds no JSON object.") from None
    if "schema" not in report or not isinstance(report.get("variants"), dict):
        raise click.ClickException(f"{path} is no report.json: it has no schema or no variants.")
    if report["schema"] != SCHEMA:
        raise click.ClickException(
            f"{path} has schema {report['schema']}, and only reports of schema {SCHEMA} can be "
            "compared. Write it anew with this version of Verdict: make all"
        )
    if lacking := [key for key in NEEDED if key not in report]:
        raise click.ClickException(f"{path} is no whole report.json: it lacks {lacking[0]}.")
    return report


def read_pairs(reports: tuple[Report, Report], paths: tuple[Path, Path]) -> Pairs:
    """The logits that lie beside both reports and are of them, of each variant measured in both."""
    found: Pairs = {}
    for name in both(*reports):
        old, new = (
            logits_of(report, path.parent, name)
            for report, path in zip(reports, paths, strict=True)
        )
        if old is not None and new is not None and len(old) == len(new):
            found[name] = (old, new)
    return found


def logits_of(report: Report, folder: Path, name: str) -> Logits | None:
    """A variant's logits in `folder`; None: not there, or, as hashes say, not of this report."""
    path, verdicts = folder / f"{name}.logits.npy", folder / f"{name}.verdicts.json"
    if not path.is_file():
        return None
    if verdicts.is_file():
        recorded = hash_of(report["inputs"], verdicts.name)
        if recorded not in (None, sha256(verdicts)):
            return None
        if hash_of(read_json(verdicts).get("inputs", {}), path.name) != sha256(path):
            return None
    found = load(path)
    return found if found.shape == (report["samples"],) else None


def read_names(paths: tuple[Path, Path]) -> list[str] | None:
    """Names of the samples, from the samples.json beside a report; None where there are none."""
    for path in reversed(paths):
        listed = path.with_name("samples.json")
        if listed.is_file() and (names := read_json(listed).get("names")):
            return list(names)
    return None


def differences(
    old: Report, new: Report, pairs: Pairs, names: list[str] | None = None
) -> list[str]:
    """What changed, a line each, and last what was compared; one line where nothing changed.

    `pairs`: the logits of the variants whose verdicts are compared exactly; `names` of the samples.
    """
    lines = [*places(old, new), *versions(old, new), *data(old, new), *rules(old, new)]
    lines += decisions(old, new)
    for name in dict.fromkeys([*new["variants"], *old["variants"]]):
        told = variant(old, new, name, pairs.get(name), names)
        lines += [line if line.startswith(" ") else f"{name}: {line}" for line in told]
    by = f"Compared: {compared(old, new, pairs)}."
    return [*lines, by] if lines else [f"Nothing changed. {by}"]


def variant(
    old: Report, new: Report, name: str, pair: tuple[Logits, Logits] | None, names: list[str] | None
) -> list[str]:
    """What changed in one variant."""
    before, after = (report["variants"].get(name) for report in (old, new))
    if name not in both(old, new):
        return presence(before, after)
    told = figures(before, after)
    if old["data"] != new["data"]:
        return told
    if pair is None:
        return told + listed_flips(before, after)
    return told + verdicts(pair, (deployed(old, name), deployed(new, name)), names)


def compared(old: Report, new: Report, pairs: Pairs) -> str:
    """What the verdicts were compared by."""
    variants = both(old, new)
    if old["data"] != new["data"]:
        return f"the figures of {len(variants)} variants, not sample by sample: the data is not the same"
    rest = [name for name in variants if name not in pairs]
    told = [f"{new['samples']} samples one by one in {len(variants) - len(rest)} variants"]
    if rest:
        told.append(
            f"only the flips that the reports list in {len(rest)} ({', '.join(rest)}), because the "
            "logits of both runs do not lie beside them"
        )
    return "; ".join(told[len(rest) == len(variants) :])


def deployed(report: Report, name: str) -> float:
    """The threshold that a variant is deployed with."""
    moved = report["variants"][name]["retuned_threshold"]
    return float(report["threshold"]["logit"] if moved is None else moved)


def verdicts(
    pair: tuple[Logits, Logits], thresholds: tuple[float, float], names: list[str] | None
) -> list[str]:
    """The samples whose verdict changed, each by its own threshold; the largest change of a logit."""
    old, new = (np.asarray(one, np.float64) for one in pair)
    was, now = (is_positive(z, t) for z, t in zip(pair, thresholds, strict=True))
    moved = np.flatnonzero(was != now)
    lines = [f"verdicts that changed: {len(moved)} of {len(new)}"] if len(moved) else []
    word = {True: "positive", False: "negative"}
    lines += few([
        f"sample {called(i, names)}: logit {old[i]:.9g} {word[bool(was[i])]} -> {new[i]:.9g} "
        f"{word[bool(now[i])]}"
        for i in moved.tolist()
    ])  # fmt: skip
    with np.errstate(invalid="ignore"):
        change = np.where((old == new) | (np.isnan(old) & np.isnan(new)), 0.0, np.abs(new - old))
    change[np.isnan(change)] = np.inf
    if len(change) and change.max() > 0:
        i = int(np.argmax(change))
        lines.append(f"largest change of a logit: {change[i]:.3g}, sample {called(i, names)}")
    return lines


def listed_flips(old: Row, new: Row) -> list[str]:
    """The samples that flip in one report and not in the other."""
    before, after = ({one["index"]: one for one in row["flips"]["samples"]} for row in (old, new))
    apart = sorted(before.keys() ^ after.keys())
    lines = [f"samples that flip in one of the reports only: {len(apart)}"] if apart else []
    return lines + few([
        f"sample {i}{' (' + one['name'] + ')' if 'name' in one else ''}: "
        f"{'flips now' if i in after else 'flips no more'}"
        for i in apart
        for one in [(after if i in after else before)[i]]
    ])  # fmt: skip


def few(lines: list[str]) -> list[str]:
    """The first of them, indented, and how many more there are."""
    more = len(lines) - LISTED
    return [f"  {line}" for line in lines[:LISTED]] + ([f"  and {more} more"] if more > 0 else [])


def called(index: int, names: list[str] | None) -> str:
    """A sample's number, with its name where it has one."""
    return f"{index} ({names[index]})" if names and index < len(names) else str(index)


if __name__ == "__main__":
    main()
