"""The sections on other conditions: again in other batches and slots, and through Triton."""

from typing import Any

from scripts.release.choose_variant import under_load
from scripts.report.sections import number


def get_repeats(report: dict[str, Any]) -> str:
    """What changes when a variant scores the same samples again, in other batches and slots."""
    names = [name for name, row in report["variants"].items() if row["measured"]]
    keys = dict.fromkeys(
        key for name in names for key in report["variants"][name]["repeats"]["conditions"]
    )
    lines = [
        "## Scored again under other conditions",
        "",
        "Largest absolute difference of a logit from the one in the tables above, and how many "
        "verdicts change. In a new process; other slots: each "
        "sample moved within its batch.",
        "",
        "| variant | " + " | ".join(keys) + " | verdicts that depend on any |",
        "|---|" + "--:|" * (len(keys) + 1),
    ]
    for name in names:
        found = report["variants"][name]["repeats"]
        cells = [_repeat(found["conditions"].get(key)) for key in keys]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {found['metrics']['flips']} |")
    repeats = report["variants"][report["reference"]]["repeats"]
    own, near = repeats["metrics"], len(repeats["noise"])
    lines += [
        "",
        f"The reference's own noise: its logits differ from themselves by up to "
        f"{number(own['deviation_max_absolute'])}, and {own['flips']} of its verdicts change, {near} of "
        "them of samples so near to the threshold that rounding explains it. No variant is held to these.",
    ]
    return "\n".join(lines) + "\n"


def _repeat(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    flips = f", {found['flips']} flips" if found["flips"] else ""
    return number(found["deviation_max_absolute"], 2) + flips


def get_served(report: dict[str, Any]) -> str:
    """Parity and latency through Triton; "" where nothing was served."""
    rows = {name: row["served"] for name, row in report["variants"].items() if row.get("served")}
    if not rows:
        return ""
    server = next(iter(rows.values()))["server"]
    keys = list(dict.fromkeys(key for row in rows.values() for key in row["conditions"]))
    kind = (
        "its native backends"
        if server["native"]
        else "Python-based backends, which run the same files: their figures say nothing of a native one"
    )
    lines = [
        "## Served by Triton",
        "",
        f"Triton {server['version']} with {kind}. Largest absolute difference of a logit from the one in "
        "process, and how many verdicts differ.",
        "",
        "| condition | " + " | ".join(f"`{name}`" for name in rows) + " |",
        "|---|" + "--:|" * len(rows),
    ]
    for key in keys:
        cells = [_repeat(row["conditions"].get(key)) for row in rows.values()]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    checked = [f"{r['load']['flips']} of {r['load']['samples_checked']}" for r in rows.values()]
    perf = any(row.get("perf") for row in rows.values())
    load = "by our own client" if perf else "below"
    lines += [f"| under load ({load}), answers that differ | {' | '.join(checked)} |", ""]
    for name, row in rows.items():
        seen = row["statistics"]
        lines.append(
            f"* `{name}`: with {row['in_flight']} requests in flight Triton ran {seen['inferences']} "
            f"samples in {seen['executions']} executions, {seen['average_batch']:.1f} a batch on average; "
            f"queue {number(seen['queue_ms'])} ms, compute {number(seen['compute_ms'])} ms each."
        )
    return "\n".join([*lines, "", *_load_table(rows)]) + "\n"


def _load_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    perf = any(row.get("perf") for row in rows.values())
    tool = "NVIDIA's perf_analyzer, in a container of its own" if perf else "our own client"
    lines = [
        "Latency of one sample a request over gRPC, with dynamic batching, so many requests always in "
        f"flight, measured by {tool}. Each variant has the server for itself, one after the other.",
        "",
        "| variant | in flight | p50, ms | p90, ms | p95, ms | p99, ms | requests per second | average batch |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        for level in under_load(row)["levels"]:
            times = " | ".join(f"{level[f'latency_p{p}_ms']:.3g}" for p in (50, 90, 95, 99))
            lines.append(
                f"| `{name}` | {level['concurrency']}{'' if level.get('stable', True) else ' (unstable)'} | "
                f"{times} | {level['throughput_per_s']:.0f} | "
                f"{level['statistics']['average_batch']:.1f} |"
            )
    if any(
        not level.get("stable", True)
        for row in rows.values()
        for level in under_load(row)["levels"]
    ):
        lines += [
            "",
            "Unstable: throughput or p50 still moved by more than 10 % from window to window after "
            "perf_analyzer's ten, so these are from one measurement alone.",
        ]
    return lines
