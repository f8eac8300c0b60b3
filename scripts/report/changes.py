"""What changed between two reports, a line for each fact: places, versions, data, rules, figures, gates, times."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.release.choose_variant import under_load

TOLERANCE, SERVED_TOLERANCE = 0.05, 0.1  # of a time: a smaller change is noise

Report = dict[str, Any]
Row = dict[str, Any]


def hash_of(inputs: dict[str, str], name: str) -> str | None:
    """The hash recorded for the file called `name`, in whatever folder it was."""
    return next((digest for path, digest in inputs.items() if Path(path).name == name), None)


def both(old: Report, new: Report) -> list[str]:
    """The variants measured in both."""
    rows = old["variants"]
    return [
        name
        for name, row in new["variants"].items()
        if row["measured"] and rows.get(name, {"measured": False})["measured"]
    ]


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
