"""Find the nodes that flip verdicts in a low-precision ONNX, and the fewest to leave in float32.

Every try is a real conversion, run on the samples that matter: of the tuning half, those that flip
and the nearest to the threshold. What is found has to hold on the whole tuning half, and to lower
the flips on the held-out half. On a CPU a float16 model runs twice, as it is and with every float16
tensor truly rounded (scripts/graphs/half_rounding.py), and a sample flips where either does.

Reads   case.toml, samples.json, the float32 model.onnx, both variants' logits, torch_fp32.threshold.json
Writes  <variant>_mixed.repair.json (what to keep, or why nothing) and <variant>.culprits.json
Runs    on the CPU, or with --device cuda on a GPU
Usage   python3 -m scripts.repair.repair_verdicts data/digits/case.toml --variant onnx_int8 \
            --samples results/digits/samples.json \
            --source model_repository/digits_onnx_fp32/1/model.onnx \
            --logits results/digits/onnx_int8.logits.npy \
            --reference results/digits/torch_fp32.logits.npy \
            --threshold results/digits/torch_fp32.threshold.json \
            --mode local --device cpu --out results/digits/onnx_int8_mixed.repair.json
Prints  onnx_int8: 1 of 5 nodes kept in float32 takes the flips on the held-out half from 2 to 0 (9 conversions)
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.parts import calibration_rows, half
from scripts.data.samples import Batch, Samples, load
from scripts.files import finite, read_json, write_json
from scripts.graphs.mixed import Convert, converter
from scripts.graphs.session import PACKAGES, default_threads, open_session, run_session
from scripts.repair.ranking import Segment, localise
from scripts.repair.search import Repair, repair
from scripts.repair.trials import Outcome, Remembered
from scripts.step import progress, record, step
from scripts.variants import BY_NAME
from scripts.verdicts.heads import log_odds
from scripts.verdicts.thresholds import is_positive

MATTER = 64  # samples nearest to the threshold, beside those that flip ...
MOST_FLIPS = 192  # ... of which the nearest to the threshold are taken
ROUGH, FINE = 12, 50  # tries of the ranking a repair begins with, and of the one that is reported
TRIES = 60  # of each search for a repair
FEW = 2  # nodes: a larger repair is sought again with the finer ranking
ROUNDS = 4  # a repair that flips others of the tuning half is sought again with those
PLAIN, HALF = "as run here", "with true rounding to float16"

Rows = NDArray[np.int64]


class Trial:
    """Converts with some nodes kept, runs samples, and compares with the reference's verdicts."""

    def __init__(
        self, case: Case, data: Samples, convert: Convert, reference: NDArray[np.float32],
        threshold: float, device: str, ways: list[str],
    ) -> None:  # fmt: skip
        self.case, self.data, self.convert = case, data, convert
        self.reference, self.threshold = reference, threshold
        self.device, self.ways = device, ways
        self.conversions = self.runs = 0
        self.held: dict[bytes, list[Batch]] = {}  # batches of the rows asked for again and again

    def outcome(self, keep: frozenset[str], rows: Rows) -> Outcome:
        """Of `rows`, with the nodes in `keep` left in float32; the logits are the last way's."""
        logits = self.logits(keep, rows)
        error = np.abs(logits.astype(np.float64) - self.reference[rows]).max(axis=0)
        total = float(error.sum())
        return Outcome(
            int(self.flips(logits, rows).sum()), total if np.isfinite(total) else np.inf, logits[-1]
        )

    def flips(self, logits: NDArray[np.float32], rows: Rows) -> NDArray[np.bool_]:
        """Which of `rows` flip in any way; a logit that is not finite is a flip."""
        right = is_positive(self.reference[rows], self.threshold)
        return ((is_positive(logits, self.threshold) != right) | ~np.isfinite(logits)).any(axis=0)

    def batches(self, rows: Rows) -> Iterable[Batch]:
        """The samples of `rows`; a few are kept in memory, decoded once."""
        cuts = range(0, len(rows), self.case.max_batch)
        parts = (self.data.rows(rows[i : i + self.case.max_batch].tolist()) for i in cuts)
        if len(rows) > MATTER + MOST_FLIPS:
            return parts
        key = rows.tobytes()
        if key not in self.held:
            self.held = {key: list(parts)}
        return self.held[key]

    def logits(self, keep: frozenset[str], rows: Rows) -> NDArray[np.float32]:
        """(ways, rows) float32."""
        from scripts.graphs.half_rounding import rounded

        model = self.convert(keep)
        self.conversions += 1
        found = []
        for way in self.ways:
            exact = rounded(model) if way == HALF else model
            session = open_session(exact.SerializeToString(), self.device, default_threads())
            raw = [run_session(session, batch) for batch in self.batches(rows)]
            self.runs += 1
            z = log_odds(np.concatenate(raw), self.case.head, self.case.positive_class)
            found.append(z.astype(np.float32))
        return np.stack(found)


@step(
    __doc__,
    "case",
    "variant",
    "samples",
    "source",
    "logits",
    "reference",
    "threshold",
    "mode",
    "device",
    "out",
)
def main(
    case_toml: Path, variant: str, samples: Path, source: Path, logits: Path, reference: Path,
    threshold: Path, mode: str, device: str, out: Path,
) -> None:  # fmt: skip
    import onnx

    case = read_case(case_toml)
    data = Samples(case, samples)
    nodes, convert = converter(BY_NAME[variant].precision, onnx.load(source), case, data)
    emulated = BY_NAME[variant].precision == "float16" and device == "cpu"
    t = read_json(threshold)["metrics"]["logit"]
    trial = Trial(case, data, convert, load(reference), t, device, [PLAIN] + [HALF] * emulated)
    with progress(None, f"repair of {variant}", "conversions") as bar:

        def say(done: int, text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(trial.conversions - bar.n)

        found, segments, rows = search(trial, nodes, data.labels.astype(bool), variant, say)
    used = [case_toml, samples, source, logits, reference, threshold]
    packages = (*PACKAGES, "onnxconverter-common", "numpy")

    def told_of(name: str, step: str) -> dict[str, Any]:
        shared = record(step, used, packages, name, mode, device)
        return shared | {"ways": trial.ways, "nodes": len(nodes)}

    write_json(
        out.with_name(f"{variant}.culprits.json"),
        told_of(variant, "culprits") | {"samples": rows.tolist(), "segments": segments},
    )
    count = {"conversions": trial.conversions, "runs": trial.runs}
    repair = told_of(f"{variant}_mixed", "repair")
    write_json(out, repair | {"repairs": variant} | found | count)
    click.echo(f"{variant}: {found['reason']} ({trial.conversions} conversions)")


def search(
    trial: Trial, nodes: list[str], labels: NDArray[np.bool_], variant: str,
    say: Callable[[int, str], None],
) -> tuple[dict[str, Any], list[dict[str, Any]], Rows]:  # fmt: skip
    """(what was decided, the segments ranked, the samples that mattered)."""
    groups = trial.data.groups
    tuning = half(labels, groups)
    held_out = np.flatnonzero(~tuning)
    if BY_NAME[variant].calibrated:
        tuning[calibration_rows(labels, groups)] = False
    part = np.flatnonzero(tuning)
    none: frozenset[str] = frozenset()
    say(0, "the tuning half")
    pure = trial.logits(none, part)
    flipped = part[trial.flips(pure, part)]
    rows = matter(trial, part, flipped)
    tried = remembered(trial, rows)
    ranked = localise(nodes, tried, ROUGH, say) if len(flipped) else []
    before = trial.outcome(none, held_out).flips if len(held_out) else 0
    halves: dict[str, Any] = {
        "tuning": {"samples": len(part), "flips_before": len(flipped), "flips_after": None},
        "held_out": {"samples": len(held_out), "flips_before": before, "flips_after": None},
    }
    nothing = {"made": False, "kept": [], "smallest": None, "alone": [], **halves}
    found = nothing | unneeded(before)
    for _ in range(ROUNDS if len(flipped) else 0):
        best = repair(nodes, tried, ranked, TRIES, say)
        if len(best.kept) > FEW and not best.flips_after:
            ranked = localise(nodes, tried, FINE, say)
            finer = repair(nodes, tried, ranked, TRIES, say)
            best = min(best, finer, key=lambda one: len(one.kept))
        if best.flips_after:
            found = decide(trial, best, nodes, halves, held_out)
            break
        again = part[trial.flips(trial.logits(frozenset(best.kept), part), part)]
        halves["tuning"]["flips_after"] = len(again)
        found = decide(trial, best, nodes, halves, held_out)
        if not len(again):
            break
        rows = np.union1d(rows, again)
        tried = remembered(trial, rows)
    ranked = localise(nodes, tried, FINE if len(flipped) else ROUGH, say) if len(rows) else []
    return found, [told(one) for one in ranked], rows


def unneeded(held_out: int) -> dict[str, Any]:
    """Why nothing is repaired where no verdict flips on the tuning half."""
    also = f", {held_out} on the held-out half, where no repair may be tuned" if held_out else ""
    return {"reason": f"nothing to repair: no verdict flips on the tuning half{also}"}


def told(segment: Segment) -> dict[str, Any]:
    """A segment as JSON holds it."""
    return {
        key: finite(value) if isinstance(value, float) else value
        for key, value in segment._asdict().items()
    }


def remembered(trial: Trial, rows: Rows) -> Remembered:
    """What each set of nodes does to `rows`, each tried once."""
    return Remembered(lambda keep: trial.outcome(keep, rows))


def matter(trial: Trial, part: Rows, flipped: Rows) -> Rows:
    """The samples to try on, sorted: those that flip, and the nearest to the threshold."""
    distance = np.abs(trial.reference - trial.threshold)
    flipped = flipped[np.argsort(distance[flipped], kind="stable")][:MOST_FLIPS]
    near = part[np.argsort(distance[part], kind="stable")][:MATTER]
    return np.union1d(flipped, near)


def decide(
    trial: Trial, best: Repair, nodes: list[str], halves: dict[str, Any], held_out: Rows
) -> dict[str, Any]:
    """Whether the repair is made, and why, as a phrase."""
    found: dict[str, Any] = {
        "made": False, "kept": best.kept, "smallest": best.smallest, "alone": best.alone,
        "exhausted": best.exhausted, **halves,
    }  # fmt: skip
    if best.flips_after and len(best.kept) == len(nodes):
        why = "not repaired: with every node in float32 verdicts still flip"
    elif best.flips_after or halves["tuning"]["flips_after"]:
        why = "not repaired: no set of nodes was found with which nothing flips on the tuning half"
    elif len(best.kept) == len(nodes):
        why = "not repaired: every node would have to stay in float32"
        if best.alone:
            why += f"; {best.alone[0]} flips verdicts with all others in float32"
    else:
        after = trial.outcome(frozenset(best.kept), held_out).flips if len(held_out) else 0
        found["held_out"]["flips_after"] = after
        before = found["held_out"]["flips_before"]
        what = f"{len(best.kept)} of {len(nodes)} nodes kept in float32"
        drop = f"the flips on the held-out half from {before} to {after}"
        if after < before:
            return found | {"made": True, "reason": f"{what} takes {drop}"}
        why = f"not repaired: {what} repairs the tuning half, and takes {drop}: no drop"
    return found | {"reason": why}


if __name__ == "__main__":
    main()
