"""The table of the hardware check: Markdown, so that docs/hardware.md can keep it as it is."""

from __future__ import annotations

from typing import Any

HEADS = ("part", "model", "what ran", "on", "mean \\|Δ\\|", "max \\|Δ\\|", "flips", "depend",
         "batch 1", "largest batch", "outcome")  # fmt: skip


def get_table(content: dict[str, Any]) -> str:
    """The whole text: machine, versions, one line per row."""
    rehearsal, facts = content["rehearsal"], content["machine"]
    where = "cpu, rehearsal" if rehearsal else "gpu"
    place = "" if rehearsal else f"**Measured on {facts['gpus'][0]['name']}.**"
    lines = [
        place or "**REHEARSAL on the CPU, at small sizes: no figure here is a GPU's.**",
        "",
        machine_line(facts),
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(content["versions"].items())) + ".",
        "",
        line(HEADS),
        line(["---"] * len(HEADS)),
        *(line(cells(row, where)) for row in content["rows"]),
    ]
    return "\n".join(lines)


def machine_line(facts: dict[str, Any]) -> str:
    """GPU, processor and Python in one line, and the settings that change what is computed."""
    listed = [
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['memory']}, driver "
        f"{gpu['driver']}"
        for gpu in facts["gpus"]
    ] or ["none"]
    text = f"GPU: {'; '.join(listed)}. CPU: {facts['cpu']}, {facts['processors']} processors. "
    text += f"{facts['system']}, Python {facts['python']}."
    settings = ", ".join(f"{name}={value}" for name, value in facts["variables"].items())
    return text + (f" Set: {settings}." if settings else "")


def cells(row: dict[str, Any], where: str) -> list[str]:
    """One row as texts; "-" where there is no figure."""
    found = row["figures"]
    samples, times = found.get("samples"), list(found.get("latency", {}).values())
    outcome = row["state"] + (f": {row['words']}" if row["words"] else "")
    return [
        row["part"],
        row["model"],
        row["what"] or "-",
        where if found else "-",
        number(found.get("deviation_mean_absolute")),
        number(found.get("deviation_max_absolute")),
        f"{found['flips']} of {samples}" if "flips" in found else "-",
        depends(found) if "depends" in found else "-",
        speed(times[0]) if times else "-",
        speed(times[-1]) if times else "-",
        outcome.replace("\n", " ").replace("|", "\\|"),
    ]


def depends(found: dict[str, Any]) -> str:
    """How many verdicts depend on batch, slot or run, and by how much a logit does at most."""
    return f"{len(found['depends'])} of {found['samples']}, {number(found['depends_max_absolute'])}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def speed(found: dict[str, Any]) -> str:
    """The median, and how many times as fast as the reference beside it that is."""
    ratio = found.get("times_as_fast")
    return f"{found['latency_p50_ms']:.3g} ms" + (f", {ratio:.2f}x" if ratio is not None else "")


def line(texts: Any) -> str:
    return "| " + " | ".join(texts) + " |"
