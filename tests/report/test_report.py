"""The report for people, whole, against a file that was read and approved.

After a wanted change: .venv/bin/python -m tests.test_report writes the new golden files; read the
difference before committing it.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from scripts.case.rules import Rules
from scripts.data.parts import calibration_rows, half
from scripts.release.conclude import conclude
from scripts.release.facts import why_not
from scripts.report.write_report import main, render
from scripts.triton.measure_served import best
from scripts.variants import BY_NAME
from scripts.verdicts.claims import Facts, Given, claims
from scripts.verdicts.compare_verdicts import compare
from scripts.verdicts.policies import compared
from scripts.verdicts.thresholds import choose_threshold

GOLDEN = Path(__file__).parents[1] / "golden"


def served_parity() -> dict[str, Any]:
    """Two conditions through Triton without a difference."""
    none = {"flips": 0, "deviation_max_absolute": 0.0}
    return {
        "server": {"version": "2.51.0", "native": False, "backend": "onnxruntime"},
        "in_flight": 16, "samples": [],
        "conditions": {"HTTP, batch 1": none, "gRPC, batch 8": none | {"deviation_max_absolute": 1e-6}},
        "statistics": {"inferences": 60, "executions": 12, "average_batch": 5.0, "queue_ms": 0.4,
                       "compute_ms": 0.9},
    }  # fmt: skip


def served_load(ms: float) -> dict[str, Any]:
    """Two levels: one request in flight, then two at half the throughput each."""
    levels = [
        {"concurrency": n, "throughput_per_s": 1000 / ms * n**0.5, "statistics": {"average_batch": n},
         **{f"latency_p{p}_ms": ms * n**0.5 * (1 + p / 100) for p in (50, 90, 95, 99)}}
        for n in (1, 2)
    ]  # fmt: skip
    return {"levels": levels, "best": best(levels), "flips": 0, "samples_checked": 400, "samples": [],
            "memory_mb": 60 + 10 * ms, "gpu_memory_mb": None, "start_s": 0.3}  # fmt: skip


def decisions() -> dict[str, Any]:
    """float16 and bfloat16 as they may end; the int8 ONNX is repaired by one node of five."""
    ways = ["as run here", "with true rounding to float16"]
    segment = {"nodes": ["conv"], "change_mean": 0.31, "change_max": 0.8, "error_removed": 9.5,
               "flips_left": 1}  # fmt: skip
    more = segment | {"nodes": ["relu", "fc"], "change_mean": None, "change_max": None}
    culprits = {"samples": list(range(20)), "nodes": 5, "segments": [segment, more]}
    halves = {"tuning": {"samples": 22, "flips_before": 3, "flips_after": 0},
              "held_out": {"samples": 30, "flips_before": 4, "flips_after": 0}}  # fmt: skip
    searched = {"step": "repair", "nodes": 5, "conversions": 9, "runs": 18, "alone": [], **halves}
    nothing = {"made": False, "kept": [], "smallest": None}
    return {
        "onnx_fp16.culprits.json": culprits | {"ways": ways},
        "onnx_int8.culprits.json": culprits | {"ways": ways[:1]},
        "onnx_fp16_mixed.repair.json": {
            "variant": "onnx_fp16_mixed", "repairs": "onnx_fp16", "ways": ways,
            "reason": "nothing to repair: no verdict flips on the tuning half", **searched, **nothing,
        },
        "onnx_int8_mixed.repair.json": {
            "variant": "onnx_int8_mixed", "repairs": "onnx_int8", "ways": ways[:1], "made": True,
            "reason": "1 of 5 nodes kept in float32 takes the flips on the held-out half from 4 to 0",
            **searched, "kept": ["conv"], "smallest": True,
        },
        "onnx_bf16.support.json": {
            "variant": "onnx_bf16", "made": False,
            "reason": "not made: ONNX Runtime 1.27.0 computes no Conv in bfloat16 on the CPU",
        },
    }  # fmt: skip


def facts() -> dict[str, Any]:
    """A report of 60 samples: onnx_fp32 agrees, onnx_fp16 is shifted and flips verdicts."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    reference = np.round(random.normal(2 * labels - 1, 1.2) * 64).astype(np.float32) / 64
    chosen = choose_threshold(reference, labels.astype(np.uint8), Fraction(9, 10))
    names = [f"{'yes' if label else 'no'}/{i:03}.png" for i, label in enumerate(labels)]
    logits = {
        "torch_fp32": reference,
        "torchscript_fp32": reference,
        "onnx_fp32": reference,
        "onnx_fp16": reference - 0.5,
        "onnx_int8": np.where(half(labels == 1), reference - 0.4, reference + 0.4).astype(
            np.float32
        ),
        "onnx_int8_mixed": reference + np.float32(2**-7),
    }
    timing = {
        "torch_fp32": 2.0, "torchscript_fp32": 1.8, "onnx_fp32": 1.0, "onnx_fp16": 0.5,
        "onnx_int8": 0.4, "onnx_int8_mixed": 0.44,
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {
        "samples.json": {"samples": 60, "positives": 30, "inputs": {"data/golden/inputs.npy": "1" * 64}},
        "torch_fp32.threshold.json": {
            "wanted_precision": 0.9, "metrics": {**vars(chosen)}, "policy": "max_recall",
            "guarantee": None,
            "policies": compared(reference, labels.astype(np.uint8), Fraction(9, 10), Rules()),
        },
        "latency.json": {"variants": {
            name: {size: {"rounds": 40, "latency_p50_ms": ms, "latency_p90_ms": ms * 1.5,
                          "latency_p99_ms": ms * 2, "throughput_per_s": 1000 / ms,
                          "block_p50_ms": [ms] * 20}
                   for size, ms in (("1", base), ("8", base * 4))}
            for name, base in timing.items()
        }},
    }  # fmt: skip
    for name, z in logits.items():
        gap = chosen.gap_high - chosen.gap_low
        calibrated = calibration_rows(labels == 1) if BY_NAME[name].calibrated else None
        found[f"{name}.verdicts.json"] = compare(
            z, reference, labels == 1, chosen.logit, gap, names, calibrated
        )
        found[f"{name}.score.json"] = {"metrics": {"saturated": 0}}
        held_in = BY_NAME[name].precision
        low = held_in if held_in != "float32" else "float16"
        share = 0.0 if held_in == "float32" else 0.9 if "mixed" in name else 1.0
        float16 = share if low == "float16" else 0.0
        others = {key: {"flips": 0, "deviation_max_absolute": size} for key, size in
                  (("again", 0.0), ("other slots", 1e-6), ("batch 1", 2e-6))}  # fmt: skip
        found[f"{name}.repeats.json"] = {
            "conditions": others, "samples": [], "noise": [],
            "metrics": {"flips": 0, "deviation_max_absolute": 2e-6},
        }  # fmt: skip
        found[f"{name}.precision.json"] = {
            "metrics": {"nodes": 8, f"node_share_{low}": share, f"weight_share_{low}": share,
                        "precision": held_in, "share": share, "share_float16": float16,
                        "share_of": "weights" if low == "int8" else "weight bytes", "counted": 4096,
                        "weight_bytes": 4096, "weight_bytes_float32": round(4096 * (1 - share)),
                        "file_bytes": round(5000 - 2000 * share), "values_below_float16": 0,
                        "beyond": [], "beyond_half": ["relu"]}
        }  # fmt: skip
        if name != "torch_fp32":
            found[f"{name}.served.json"] = served_parity()
    found["served_latency.json"] = {"variants": {
        name: served_load(ms) for name, ms in timing.items() if name != "torch_fp32"
    }}  # fmt: skip
    tensors = [{"name": "relu", "relative_error": 4e-4}, {"name": "output", "relative_error": 2e-3}]
    found["onnx_fp16.layers.json"] = {
        "source": "onnx_fp32", "samples": list(range(32)), "tensors": tensors,
        "largest_error": "output", "first_jump": None,
        "marked_minus_unmarked_max": 0.001,
    }  # fmt: skip
    for name in ("onnx_int8", "onnx_int8_mixed"):
        found[f"{name}.layers.json"] = found["onnx_fp16.layers.json"] | {"first_jump": "relu"}
    found |= decisions()
    given = Given(reference, labels == 1, chosen.logit, Fraction(9, 10), Rules())
    facts = {
        name: Facts(z, chosen.logit, BY_NAME[name].calibrated, "_mixed" in name)
        for name, z in logits.items()
        if name != "torch_fp32"
    }
    found["claims.json"] = claims(given, facts)
    reasons = why_not(decisions(), "torch", "local", False, ())
    report = conclude("golden", Fraction(9, 10), Rules(), found, reasons)
    report["conditions"] = {
        "device": "cpu", "threads": 2, "providers": {"onnx_fp32": "CPUExecutionProvider"},
        "versions": {"none": {"image": "none", "numpy": "2.2.6"}}, "gpu_name": None,
        "release": "none", "served": "yes", "mode": "local", "why_mode": "asked for", "gpu": "no",
        "why_gpu": "asked for",
    }  # fmt: skip
    report["promotion"] = None
    report["inputs"] = {"data/golden/case.toml": "0" * 64}
    return report


def test_the_facts_are_those_that_were_approved() -> None:
    assert json.loads(json.dumps(facts())) == json.loads((GOLDEN / "report.json").read_text())


def test_the_report_byte_for_byte() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    assert render(report, "golden/") == (GOLDEN / "report.md").read_text()


def test_the_command_writes_the_same(tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    arguments = [str(GOLDEN / "report.json"), "--pictures", "golden/", "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == (GOLDEN / "report.md").read_bytes()


def test_the_recommendation_stands_in_the_first_ten_lines() -> None:
    head = (GOLDEN / "report.md").read_text().splitlines()[:10]
    assert any(line.startswith("**To production: `onnx_") for line in head)
    assert any(line.startswith("**Not measured here:** `trt_fp32`, `trt_fp16`") for line in head)


def test_a_number_that_is_undefined_says_so() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    row = report["variants"]["onnx_fp16"]
    row["vs_labels"] |= {"tp": 0, "fp": 0, "precision": None}
    row["deviation"] |= {"mean": None}
    text = render(report, "")
    assert "undefined" in text
    assert "not finite" in text
    assert "| nan |" not in text.lower()


@pytest.mark.parametrize(("support", "warned"), [(29, True), (30, False)])
def test_a_threshold_that_rests_on_few_samples_is_named(support: int, warned: bool) -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    report["threshold"]["predicted_positives"] = support
    assert ("**Little evidence:**" in render(report, "")) is warned


def test_no_variant_fit_for_production() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    report["recommendation"] = {
        "variant": None, "threshold": None, "reasons": ["no converted variant passes every gate"],
        "not_chosen": dict.fromkeys(report["variants"], "fails"), "sensitivity": [],
    }  # fmt: skip
    assert "**To production: nothing new.** No converted variant" in render(report, "")


def test_what_was_not_served_is_said_on_the_first_page() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    report["conditions"]["served"] = "no"
    for row in report["variants"].values():
        row["served"] = None
    text = render(report, "")
    assert "**Not served:** SERVED=no was asked for" in text[:1500]
    assert "## Served by Triton" not in text


def test_the_load_table_says_who_measured_and_what_was_not_stable() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    text = render(report, "")
    assert "measured by our own client" in text
    assert "perf_analyzer" not in text and "unstable" not in text.lower()
    for name, row in report["variants"].items():
        if row.get("served"):
            levels = [one | {"stable": True} for one in served_load(7.0)["levels"]]
            levels[1]["stable"] = name != "onnx_fp16"
            row["served"]["perf"] = {"levels": levels, "best": levels[0]}
    text = render(report, "")
    assert "measured by NVIDIA's perf_analyzer" in text
    assert "| under load (by our own client), answers that differ | 0 of 400 |" in text
    assert text.count("| 2 (unstable) |") == 1
    assert text.count("Unstable: throughput or p50 still moved") == 1
    rows = [line for line in text.splitlines() if line.startswith("| `onnx_fp32` | 2 | ")]
    assert rows == ["| `onnx_fp32` | 2 | 14.8 | 18.8 | 19.3 | 19.7 | 202 | 2.0 |"]


def test_what_was_promoted_by_hand_comes_first() -> None:
    report = json.loads((GOLDEN / "report.json").read_text())
    report["promotion"] = {
        "variant": "onnx_fp16",
        "threshold": 0.5,
        "failed_gates": ["parity"],
        "open_gates": [],
    }
    line = render(report, "").splitlines()[2]
    assert line.startswith(
        "**Promoted by hand to production: `onnx_fp16`**, with the threshold logit"
    )
    assert "**It fails the gates: parity.**" in line


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "report.json").write_text(json.dumps(facts(), indent=1) + "\n")
    (GOLDEN / "report.md").write_text(render(facts(), "golden/"))
