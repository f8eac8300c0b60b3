"""Compare a variant's verdicts and logits with the reference's, and re-tune its threshold.

Reads   the logits of both, labels.npy, torch_fp32.threshold.json, samples.json (for names)
Writes  <variant>.verdicts.json
Runs    on the CPU
Usage   python3 -m scripts.verdicts.compare_verdicts --variant onnx_fp16 \
            --logits results/digits/onnx_fp16.logits.npy \
            --reference results/digits/torch_fp32.logits.npy \
            --labels results/digits/labels.npy --samples results/digits/samples.json \
            --threshold results/digits/torch_fp32.threshold.json \
            --out results/digits/onnx_fp16.verdicts.json
Prints  onnx_fp16: 0 flips in 899 samples, largest deviation 0.0041
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.data.parts import SEED, calibration_rows, half
from scripts.data.samples import load
from scripts.files import read_json, write_json
from scripts.step import record, step
from scripts.variants import BY_NAME
from scripts.verdicts.thresholds import _parts, is_positive, retune

NEAREST = 100  # samples nearest to the threshold, for the deviation that can matter
PIECE = 8192  # NumPy's own, when it adds up

Flags = NDArray[np.bool_]
Logits = NDArray[np.float32]
Rows = NDArray[np.int64] | range


@step(__doc__, "variant", "logits", "reference", "labels", "samples", "threshold", "out")
def main(
    variant: str, logits: Path, reference: Path, labels: Path, samples: Path, threshold: Path,
    out: Path,
) -> None:  # fmt: skip
    chosen = read_json(threshold)["metrics"]
    low = chosen["gap_low"]
    gap = chosen["gap_high"] - low if low is not None else 1.0
    z, s, y = load(logits), load(reference), load(labels).astype(bool)
    listed = read_json(samples)
    groups = load(Path(listed["groups"])) if "groups" in listed else None
    calibrated = calibration_rows(y, groups) if BY_NAME[variant].calibrated else None
    try:
        found = compare(z, s, y, chosen["logit"], gap, listed.get("names"), calibrated, groups)
    except ValueError as error:
        raise click.ClickException(f"{logits} against {reference}: {error}.") from None
    used = list(dict.fromkeys([logits, reference, labels, samples, threshold]))
    content = {
        **record("verdicts", used, ("numpy",), variant),
        "threshold": chosen["logit"],
        **found,
    }
    write_json(out, content)
    largest = found["deviation"]["max_absolute"]
    shown = "not finite" if largest is None else f"{largest:.4g}"
    click.echo(f"{variant}: {found['flips']['total']} flips in {found['samples']} samples, "
               f"largest deviation {shown}")  # fmt: skip


def compare(
    logits: Logits, reference: Logits, labels: Flags, threshold: float, gap: float,
    names: list[str] | None = None, calibrated: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything the report says of one variant's verdicts.

    logits, reference (n,) float32, labels (n,) bool, `gap` the reference's around the threshold.
    A logit that is not finite has the negative verdict, as in production, and is counted.
    `calibrated`: rows of the samples that calibrated the variant, of which only the flips are counted,
    apart; all else is of the others. Raises ValueError when the lengths differ or nothing is there
    to compare.
    """
    if not len(logits) == len(reference) == len(labels):
        raise ValueError(
            f"{len(logits)} logits, {len(reference)} of the reference, {len(labels)} labels"
        )
    if not len(logits):
        raise ValueError("no samples: nothing was compared")
    verdicts, right = is_positive(logits, threshold), is_positive(reference, threshold)
    differs, tuning = verdicts != right, half(labels, groups)
    nonfinite = len(logits) - np.count_nonzero(np.isfinite(logits))
    rows: Rows = range(len(logits))
    calibration = None
    if calibrated is not None:
        judged = np.ones(len(labels), bool)
        judged[calibrated] = False
        calibration = {"samples": len(calibrated), "flips": int(differs[calibrated].sum())}
        if not judged.any():
            raise ValueError(f"all {len(judged)} samples calibrated the variant: none can judge it")
        rows = np.flatnonzero(judged)
        logits, reference, labels = logits[rows], reference[rows], labels[rows]
        verdicts, right, differs, tuning = (
            flags[rows] for flags in (verdicts, right, differs, tuning)
        )
    return {
        "samples": len(rows),
        "nonfinite": nonfinite,
        "calibration": calibration,
        "flips": flips(logits, reference, labels, threshold, names, rows),
        "held_out": {
            "samples": len(rows) - np.count_nonzero(tuning),
            "flips": np.count_nonzero(differs & ~tuning),
        },
        "deviation": deviation(logits, reference, threshold),
        "vs_reference": confusion(verdicts, right),
        "vs_labels": confusion(verdicts, labels),
        "retuning": retuning(logits, right, labels, tuning, threshold, gap, rows),
    }


def deployed(verdicts: dict[str, Any]) -> float:
    """The threshold this variant would be served with: re-tuned where that was accepted."""
    retuning = verdicts["retuning"]
    moved = retuning["threshold"] if retuning else None
    return float(verdicts["threshold"] if moved is None else moved)


def confusion(verdicts: Flags, truth: Flags) -> dict[str, Any]:
    """tp, fp, fn, tn, and accuracy, precision, recall; None where there is nothing to divide by."""
    tp = np.count_nonzero(verdicts & truth)
    fp, fn = np.count_nonzero(verdicts) - tp, np.count_nonzero(truth) - tp
    tn = len(verdicts) - tp - fp - fn
    return {
        "tp": tp, "fp": fp, "fn": fn, "tn": tn,
        "accuracy": (tp + tn) / len(verdicts),
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
    }  # fmt: skip


def flips(
    logits: Logits, reference: Logits, labels: Flags, threshold: float,
    names: list[str] | None = None, rows: Rows | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How many verdicts differ, by direction, and each sample, nearest to the threshold first.

    `rows`: the number of each sample in the test data, where these are not all.
    """
    rows = range(len(logits)) if rows is None else rows
    flipped = np.flatnonzero(is_positive(logits, threshold) != is_positive(reference, threshold))
    order = flipped[np.argsort(np.abs(reference[flipped] - threshold), kind="stable")]
    down = int(is_positive(reference[flipped], threshold).sum())
    listed = []
    for i in order.tolist():
        z = float(logits[i])
        entry = {
            "index": int(rows[i]),
            "label": int(labels[i]),
            "reference_logit": float(reference[i]),
            "variant_logit": z if np.isfinite(z) else None,
            "reference_distance": float(reference[i]) - threshold,
            "variant_distance": z - threshold if np.isfinite(z) else None,
        }
        listed.append(entry | ({"name": names[rows[i]]} if names else {}))
    return {
        "total": len(listed),
        "positive_to_negative": down,
        "negative_to_positive": len(listed) - down,
        "samples": listed,
    }


def deviation(logits: Logits, reference: Logits, threshold: float) -> dict[str, Any]:
    """Variant minus reference over all samples, and over those nearest to the threshold.

    All None where a logit is not finite.
    """
    near: NDArray[np.int64] = np.empty(0, np.int64)
    margin: Logits = np.empty(0, np.float32)
    for part in _parts(len(reference)):
        here = np.abs(reference[part] - threshold)
        full = len(near) == NEAREST
        few = np.flatnonzero(~(here >= margin[-1])) if full else np.arange(len(here))
        near, margin = np.append(near, part.start + few), np.append(margin, here[few])
        order = np.argsort(margin, kind="stable")[:NEAREST]
        near, margin = near[order], margin[order]
    width = float(margin.max())
    return _deviation(logits, reference) | {
        "near_threshold": _deviation(logits[near], reference[near])
        | {"samples": len(near), "width": width}
    }


def _deviation(logits: Logits, reference: Logits) -> dict[str, Any]:
    total, absolute, low, high = _sums(logits, reference)
    if not (np.isfinite(low) and np.isfinite(high)):
        return dict.fromkeys(("mean", "mean_absolute", "min", "max", "max_absolute"))
    return {
        "mean": total / len(logits),
        "mean_absolute": absolute / len(logits),
        "min": low,
        "max": high,
        "max_absolute": max(abs(low), abs(high)),
    }


def _sums(logits: Logits, reference: Logits) -> tuple[float, float, float, float]:
    """Of variant minus reference in float64: sum, sum of absolutes, minimum, maximum.

    In the pieces in which NumPy adds up, so that the sums are the same and no large array is made.
    """
    total, absolute, lows, highs = 0.0, 0.0, [], []
    for start in range(0, len(logits), PIECE):
        piece = slice(start, start + PIECE)
        delta = logits[piece].astype(np.float64) - reference[piece]
        lows.append(delta.min())
        highs.append(delta.max())
        total += float(delta.sum())
        absolute += float(np.abs(delta, out=delta).sum())
    return total, absolute, float(np.min(lows)), float(np.max(highs))


def retuning(
    logits: Logits, verdicts: Flags, labels: Flags, tuning: Flags, threshold: float, gap: float,
    rows: Rows,
) -> dict[str, Any] | None:  # fmt: skip
    """Tune on the `tuning` part, judge on the rest; None where no verdict differs.

    `threshold` in the answer is the new one where the flips on the held-out half dropped, else
    None: the one in force stays.
    """
    differs = is_positive(logits, threshold) != verdicts
    if not differs.any():
        return None
    if not np.isfinite(logits).all():
        return {"threshold": None, "reason": "its logits are not all finite"}
    if not tuning.any():
        return {"threshold": None, "reason": "no sample is left to tune on"}
    few = _where_it_matters(logits, differs & tuning, tuning, threshold, gap)
    found = retune(logits[few], verdicts[few], threshold, gap)
    few = _where_it_matters(logits, differs, np.ones(len(logits), bool), threshold, gap)
    whole = retune(logits[few], verdicts[few], threshold, gap)
    moved = is_positive(logits, found.logit) != verdicts
    size, all_before, all_after = (np.count_nonzero(flags) for flags in (tuning, differs, moved))
    tuned_before, tuned_after = np.count_nonzero(differs & tuning), np.count_nonzero(moved & tuning)
    before, after = all_before - tuned_before, all_after - tuned_after
    if found.logit == threshold:
        reason = "no other threshold leaves fewer flips on the tuning half"
    elif after < before:
        reason = "the flips on the held-out half dropped"
    else:
        reason = "the flips on the held-out half did not drop"
    return {
        "threshold": found.logit if after < before else None,
        "reason": reason,
        "candidate": found.logit,
        "shift": found.logit - threshold,
        "interval": [found.interval_low, found.interval_high],
        "seed": SEED,
        "tuning": {
            "samples": size,
            "flips_before": tuned_before,
            "flips_after": tuned_after,
        },
        "held_out": {
            "samples": len(tuning) - size,
            "flips_before": before,
            "flips_after": after,
        },
        "flips_after": all_after,
        "vs_labels": confusion(is_positive(logits, found.logit), labels),
        "fewest_flips": whole.flips,
        "separation": whole.gap if np.isfinite(whole.gap) else None,
        "crossing": [int(rows[few[i]]) for i in whole.crossing] if whole.crossing else None,
    }


def _where_it_matters(
    logits: Logits, differs: Flags, considered: Flags, threshold: float, gap: float
) -> NDArray[np.int64]:
    """Rows of the considered samples from which retune() finds the same as from all of them.

    Below the lowest logit whose verdict differs, and the threshold, all verdicts are negative in
    both: a cut there is worse than at its end. So are all above the highest positive in both. What
    lies between is needed, and the next logit on either side.
    """
    z = logits[differs]
    low = np.nextafter(np.float32(min(z.min(initial=np.inf), threshold)), np.float32(-np.inf))
    high = np.nextafter(np.float32(max(z.max(initial=-np.inf), threshold)), np.float32(np.inf))
    size, width = np.count_nonzero(considered), max(float(high - low) / 8, gap)
    while True:
        begin, end = np.float32(low - width), np.float32(high + width)
        rows = np.flatnonzero((logits >= begin) & (logits <= end) & considered)
        z = logits[rows]
        if len(rows) == size or ((z < low).any() and (z > high).any()):
            return rows
        width *= 16


if __name__ == "__main__":
    main()
