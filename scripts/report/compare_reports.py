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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.data.samples import load
from scripts.files import read_json, sha256
from scripts.release.choose_variant import under_load
from scripts.release.conclude import SCHEMA
from scripts.verdicts.thresholds import is_positive

LISTED = 20  # samples, of each variant
TOLERANCE, SERVED_TOLERANCE = 0.05, 0.1  # of a time: a smaller change is noise
NEEDED = (
    "case", "data", "inputs", "samples", "positives", "wanted_precision", "policies", "rules",
    "threshold", "variants", "recommendation", "promotion", "decision", "conditions",
)  # fmt: skip

Report = dict[str, Any]
Row = dict[str, Any]
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


def hash_of(inputs: dict[str, str], name: str) -> str | None:
    """The hash recorded for the file called `name`, in whatever folder it was."""
    return next((digest for path, digest in inputs.items() if Path(path).name == name), None)


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


def both(old: Report, new: Report) -> list[str]:
    """The variants measured in both."""
    rows = old["variants"]
    return [
        name
        for name, row in new["variants"].items()
        if row["measured"] and rows.get(name, {"measured": False})["measured"]
    ]


def deployed(report: Report, name: str) -> float:
    """The threshold that a variant is deployed with."""
    moved = report["variants"][name]["retuned_threshold"]
    return float(report["threshold"]["logit"] if moved is None else moved)


def arrow(old: Any, new: Any) -> str:
    """`old -> new`, with as many digits as tell the two apart."""
    for digits in (4, 6, 9, 17):
        told = [f"{one:.{digits}g}" if isinstance(one, float) else str(one) for one in (old, new)]
        if told[0] != told[1]:
            break
    return " -> ".join("none" if one == "None" else one for one in told)


def changed(label: str, old: Any, new: Any) -> list[str]:
    """A line, where the two differ."""
    return [] if old == new else [f"{label}: {arrow(old, new)}"]


def keys_changed(prefix: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """A line for each key that is not the same in both, "none" where it is not there."""
    for key in dict.fromkeys([*old, *new]):
        yield from changed(prefix + key, old.get(key), new.get(key))


def places(old: Report, new: Report) -> Iterator[str]:
    """Mode, device, GPU, release, threads, and what ran each variant."""
    before, after = old["conditions"], new["conditions"]
    for key, label in (
        ("mode", "mode"), ("release", "release"), ("device", "device"), ("gpu_name", "GPU"),
        ("threads", "threads"), ("served", "tried in Triton"),
    ):  # fmt: skip
        yield from changed(label, before[key], after[key])
    shared = set(both(old, new))
    known = [{k: v for k, v in one["providers"].items() if k in shared} for one in (before, after)]
    yield from keys_changed("what runs ", known[0], known[1])


def versions(old: Report, new: Report) -> Iterator[str]:
    """Images, packages and Triton. Packages of images that only one has are compared all together."""
    before, after = (report["conditions"]["versions"] for report in (old, new))
    shared = [image for image in before if image in after]
    for image in shared:
        suffix = "" if image == "none" else f" in {image}"
        kept = [
            {f"{k}{suffix}": short(v) for k, v in one[image].items()} for one in (before, after)
        ]
        yield from keys_changed("", kept[0], kept[1])
    others = [pooled(one, shared) for one in (before, after)]
    yield from keys_changed("", others[0], others[1])
    yield from changed("Triton", triton(old), triton(new))


def pooled(found: dict[str, dict[str, str]], but: list[str]) -> dict[str, str]:
    """package -> its versions in all images but some."""
    told: dict[str, list[str]] = {}
    for image, packages in found.items():
        for package, version in packages.items() if image not in but else ():
            told.setdefault(package, []).append(short(version))
    return {package: ", ".join(sorted(set(found))) for package, found in told.items()}


def short(version: str) -> str:
    """The ID of an image by its first digits."""
    head, mark, digest = version.partition("sha256:")
    return head + mark + digest[:12]


def triton(report: Report) -> str | None:
    """Versions of the server, and whether it runs its own backends; None: none was asked."""
    servers = [row["served"]["server"] for row in report["variants"].values() if row.get("served")]
    told = {f"{one['version']}{'' if one['native'] else ' (stand-in backend)'}" for one in servers}
    return ", ".join(sorted(told)) or None


def data(old: Report, new: Report) -> Iterator[str]:
    """Files of the test data, and case.toml, which is not of the data."""
    before, after = old["data"], new["data"]
    for path in dict.fromkeys([*before, *after]):
        if before.get(path) != after.get(path):
            kind = "added" if path not in before else "removed" if path not in after else "changed"
            yield f"data {kind}: {path}"
    for key in ("samples", "positives"):
        yield from changed(key, old[key], new[key])
    if hash_of(old["inputs"], "case.toml") != hash_of(new["inputs"], "case.toml"):
        yield "case.toml changed"


def rules(old: Report, new: Report) -> Iterator[str]:
    """What case.toml asks, and the threshold that comes of it."""
    yield from changed("wanted precision", old["wanted_precision"], new["wanted_precision"])
    yield from changed("policy", old["policies"]["policy"], new["policies"]["policy"])
    yield from keys_changed("rule ", old["rules"], new["rules"])
    before, after = old["threshold"]["logit"], new["threshold"]["logit"]
    for line in changed("threshold", before, after):
        yield f"{line} ({after - before:+.4g})"


def decisions(old: Report, new: Report) -> Iterator[str]:
    """The recommendation, what was promoted by hand, and what make gate says."""
    before, after = old["recommendation"], new["recommendation"]
    yield from changed("recommendation", before["variant"], after["variant"])
    yield from changed("its threshold", before["threshold"], after["threshold"])
    by_hand = [report["promotion"] and report["promotion"]["variant"] for report in (old, new)]
    yield from changed("promoted by hand", *by_hand)
    told = [f"exit {one['decision']['exit']}, {one['decision']['verdict']}" for one in (old, new)]
    yield from changed("make gate", *told)


def presence(old: Row | None, new: Row | None) -> list[str]:
    """A variant that only one report knows or measured."""
    if new is None:
        return ["vanished: the new report does not know it"]
    if old is None:
        return ["appeared" + ("" if new["measured"] else f", and is not measured: {new['reason']}")]
    if new["measured"]:
        return [f"measured now; before it was not: {old['reason']}"]
    if old["measured"]:
        return [f"not measured any more: {new['reason']}"]
    return changed("still not measured, for another reason", old["reason"], new["reason"])


def figures(old: Row, new: Row) -> list[str]:
    """Flips, deviation, quality, bound, gates, times and size of a variant measured in both."""
    rows = (old, new)
    told = [f"{row['flips']['total']} of {row['samples']}" for row in rows]
    lines = changed("flips", *told)
    lines += changed("largest deviation", *(row["deviation"]["max_absolute"] for row in rows))
    lines += changed("threshold of its own", *(row["retuned_threshold"] for row in rows))
    for key in ("precision", "recall"):
        lines += changed(f"{key} against the labels", *(labels(row)[key] for row in rows))
    bounds = [row.get("claim", {}).get("flip_rate_upper") for row in rows]
    lines += changed("upper bound of the flips in new data", *bounds)
    sizes = [(row["precision_proof"] or {}).get("file_bytes") for row in rows]
    return lines + gates(old, new) + times(old, new) + changed("bytes of the file", *sizes)


def labels(row: Row) -> Row:
    """The verdicts as deployed, against the labels."""
    found: Row = (row if row["retuned_threshold"] is None else row["retuning"])["vs_labels"]
    return found


def gates(old: Row, new: Row) -> list[str]:
    """The gates whose state changed, with what is found now."""
    before, after = ({one["gate"]: one for one in row.get("gates", [])} for row in (old, new))
    lines = []
    for name in dict.fromkeys([*before, *after]):
        states = [one[name]["state"] if name in one else None for one in (before, after)]
        found = f" ({after[name]['found']})" if name in after else ""
        lines += [line + found for line in changed(f"gate {name}", *states)]
    return lines


def times(old: Row, new: Row) -> list[str]:
    """p50 in process at batch 1; in Triton p50 with one request in flight, and the best throughput.

    In Triton by perf_analyzer where both reports have its figures, else by our own client.
    """
    sides = [(row["latency"] or {}).get("1", {}).get("latency_p50_ms") for row in (old, new)]
    lines = ratio("p50 in process at batch 1", sides, "ms", TOLERANCE)
    served = [row["served"] for row in (old, new)]
    if None in served:
        return lines
    perf = all(one["perf"] for one in served)
    loads = [under_load(one if perf else one | {"perf": None}) for one in served]
    first = [one["levels"][0]["latency_p50_ms"] for one in loads]
    lines += ratio("p50 in Triton with one request in flight", first, "ms", SERVED_TOLERANCE)
    best = [one["best"]["throughput_per_s"] for one in loads]
    return lines + ratio("best throughput in Triton", best, "requests/s", SERVED_TOLERANCE)


def ratio(label: str, sides: list[float | None], unit: str, tolerance: float) -> list[str]:
    """A line, where the second is more than `tolerance` away from the first."""
    old, new = sides
    if old is None or new is None:
        return changed(label, old, new)
    if abs(new / old - 1) <= tolerance:
        return []
    return [f"{label}: {arrow(old, new)} {unit}, {new / old:.2f} times"]


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
