"""The sections of the report on low precision: the price of a flip, culprits, repairs, range."""

from typing import Any

from scripts.variants import BY_NAME

NAMED = 8  # nodes named in a sentence


def get_price(report: dict[str, Any]) -> str:
    """Flips, latency and size of every variant that could be shipped, the best of each kind marked."""
    rows = {name: row for name, row in report["variants"].items() if row.get("gates")}
    if not rows:
        return ""
    best = pareto({name: figures(row) for name, row in rows.items()})
    lines = [
        "## Price per flip",
        "",
        "Flips on the held-out half, which tuned and calibrated nothing. Marked: no other variant is at "
        "least as good in flips, latency and size, and better in one.",
        "",
        "| variant | flips, held out | p50 at batch 1, ms | size, MB | weight bytes in float32 | marked |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, row in rows.items():
        flips, latency, size = figures(row)
        kept = row["precision_proof"].get("weight_bytes_float32")
        lines.append(
            f"| `{name}` | {flips} of {row['held_out']['samples']} | {latency:.3g} | {size / 1e6:.3g} | "
            f"{'-' if kept is None else kept} | {'yes' if name in best else ''} |"
        )
    bought = [bargain(report, name) for name in rows if rows[name]["repair"]]
    return "\n".join([*lines, "", *bought]) + "\n"


def figures(row: dict[str, Any]) -> tuple[int, float, int]:
    """(flips on the held-out half, with the threshold that is deployed, median latency at batch 1 in ms, bytes of the file)."""
    moved = row["retuned_threshold"] is not None
    return (
        row["retuning"]["held_out"]["flips_after"] if moved else row["held_out"]["flips"],
        row["latency"]["1"]["latency_p50_ms"],
        row["precision_proof"]["file_bytes"],
    )


def pareto(found: dict[str, tuple[Any, ...]]) -> set[str]:
    """The names that no other one beats: as low in each figure, and lower in one."""
    return {
        name
        for name, mine in found.items()
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in found.values()
        )
    }


def bargain(report: dict[str, Any], name: str) -> str:
    """One sentence: what a repair keeps, buys and costs."""
    variants = report["variants"]
    row = variants[name]
    repair = row["repair"]
    pure = variants[repair["repairs"]]
    before, after = (one["held_out"]["flips"] for one in (pure, row))
    ratio = figures(row)[1] / figures(pure)[1] - 1
    cost = f"{abs(ratio):.0%} {'more' if ratio >= 0 else 'less'} latency"
    source = str(BY_NAME[name].source)
    whole = variants[source]
    against = (
        f" ({figures(row)[1] / figures(whole)[1]:.0%} of `{source}`'s)"
        if whole.get("gates")
        else ""
    )
    bought = (
        f"takes the flips on the held-out half from {before} to {after}"
        if before
        else "takes back flips that only true rounding to float16 shows, none of them here"
    )
    return (
        f"`{name}`: keeping {len(repair['kept'])} of {repair['nodes']} nodes in float32 {bought}, for "
        f"{cost} than `{repair['repairs']}` at batch 1{against}."
    )


def get_repair(report: dict[str, Any]) -> str:
    """For each variant that a repair was sought for: the culprits, and what was decided; "" for none."""
    lines = []
    for name, row in report["variants"].items():
        repair = row["repair"]
        if repair is None:
            continue
        culprits = report["variants"][repair["repairs"]]["culprits"]
        lines += [f"**`{repair['repairs']}`** on {culprits['samples']} samples of the tuning half that flip or "
                  f"are nearest to the threshold, {' and '.join(culprits['ways'])}. Set back to float32, these "
                  "move the logits most:", ""]  # fmt: skip
        lines += _culprit_table(culprits["first"])
        lines += [f"`{name}`: {repair['reason']}. {_search(repair)}", ""]
    return "\n".join(["## Nodes that move verdicts", "", *lines]) if lines else ""


def _search(repair: dict[str, Any]) -> str:
    """What the search kept and how sure it is that nothing smaller does."""
    made = f"{repair['conversions']} conversions were made and {repair['runs']} times run."
    if not repair["kept"]:
        return made
    proof = (
        "no smaller set does it, all were tried"
        if repair["smallest"]
        else "none of them can be left out"
    )
    words = f"In float32: {named(repair['kept'])} ({proof}). "
    if repair["alone"]:
        words += f"With all else in float32 still flips: {named(repair['alone'])}. "
    return words + made


def _culprit_table(segments: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| nodes | mean change of the logit | largest | flips left |",
        "|---|--:|--:|--:|",
    ]
    for one in segments:
        mean, largest = (
            "not finite" if one[key] is None else f"{one[key]:.3g}"
            for key in ("change_mean", "change_max")
        )
        lines.append(f"| {named(one['nodes'])} | {mean} | {largest} | {one['flips_left']} |")
    return [*lines, ""]


def get_range(report: dict[str, Any]) -> str:
    """Which inner tensors float16 cannot hold, or hardly; "" where no variant is float16."""
    lines = []
    for name, row in report["variants"].items():
        found = row.get("range")
        if found is None:
            continue
        beyond, near = found["beyond"], found["beyond_half"]
        lines.append(
            f"* `{name}`: "
            + (
                f"**overflows float16 at {named(beyond)}**"
                if beyond
                else f"{named(near)} pass half of float16's range"
                if near
                else "no tensor passes half of float16's range"
            )
            + "."
        )
    if not lines:
        return ""
    words = (
        "The largest value of every inner tensor in float32, on the whole test set: a CPU hides an "
        "overflow that a GPU shows."
    )
    return "\n".join(["## Range of float16", "", words, "", *lines]) + "\n"


def named(names: list[str]) -> str:
    """Some of the names, as code."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more
