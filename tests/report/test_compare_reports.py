"""What compare_reports says of two reports: the approved one, and copies of it with known changes."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from scripts.files import sha256
from scripts.report.compare_reports import both, differences, main
from tests.report.test_report import GOLDEN

MEASURED = ["torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_fp16", "onnx_int8",
            "onnx_int8_mixed"]  # fmt: skip
N = 60
LISTED = (
    f"Compared: only the flips that the reports list in 6 ({', '.join(MEASURED)}), because the logits "
    "of both runs do not lie beside them."
)
ONE_BY_ONE = "Compared: 60 samples one by one in 6 variants."


@pytest.fixture
def old() -> dict[str, Any]:
    report: dict[str, Any] = json.loads((GOLDEN / "report.json").read_text(encoding="utf-8"))
    assert both(report, report) == MEASURED
    return report


@pytest.fixture
def new(old: dict[str, Any]) -> dict[str, Any]:
    """A copy of it, to change."""
    return deepcopy(old)


def logits() -> dict[str, Any]:
    """variant -> (60,) float32, from -3 to 3; none is a threshold."""
    return {name: np.linspace(-3, 3, N, dtype=np.float32) for name in MEASURED}


def pairs(after: dict[str, Any]) -> dict[str, Any]:
    """With the logits of before."""
    return {name: (z, after[name]) for name, z in logits().items()}


def moved(variant: str, *places: int, by: float = 4.0) -> dict[str, Any]:
    """Some of a variant's logits moved, up those below 0 and down the others."""
    found = logits()
    rows = list(places)
    found[variant][rows] += np.where(found[variant][rows] < 0, by, -by).astype(np.float32)
    return found


def told(old: dict[str, Any], new: dict[str, Any], **more: Any) -> list[str]:
    """The lines but the last, which says what was compared."""
    *lines, last = differences(old, new, **({"pairs": pairs(logits())} | more))
    assert last == ONE_BY_ONE
    return lines


def test_nothing_changed_is_one_line(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert differences(old, new, pairs(logits())) == [f"Nothing changed. {ONE_BY_ONE}"]
    assert differences(old, new, {}) == [f"Nothing changed. {LISTED}"]


def test_some_logits_only(old: dict[str, Any], new: dict[str, Any]) -> None:
    some = {name: pair for name, pair in pairs(logits()).items() if name != "onnx_fp16"}
    assert differences(old, new, some) == [
        "Nothing changed. Compared: 60 samples one by one in 5 variants; only the flips that the reports "
        "list in 1 (onnx_fp16), because the logits of both runs do not lie beside them."
    ]


def test_the_reports_themselves_stay_as_they_are(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["variants"]["onnx_fp16"]["flips"]["total"] = 1
    before = deepcopy((old, new))
    differences(old, new, pairs(logits()))
    assert (old, new) == before


def test_each_sample_whose_verdict_changed_is_named(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    names = [f"{i}.png" for i in range(N)]
    changed = pairs(moved("onnx_fp32", 2, 57))
    assert told(old, new, pairs=changed, names=names) == [
        "onnx_fp32: verdicts that changed: 2 of 60",
        "  sample 2 (2.png): logit -2.79661012 negative -> 1.20338988 positive",
        "  sample 57 (57.png): logit 2.79661012 positive -> -1.20338988 negative",
        "onnx_fp32: largest change of a logit: 4, sample 2 (2.png)",
    ]


def test_a_logit_may_change_and_no_verdict(old: dict[str, Any], new: dict[str, Any]) -> None:
    changed = pairs(moved("onnx_int8", 7, by=2.0**-10))
    assert told(old, new, pairs=changed) == [
        "onnx_int8: largest change of a logit: 0.000977, sample 7"
    ]


@pytest.mark.parametrize("count, more", [(20, []), (21, ["  and 1 more"]), (25, ["  and 5 more"])])
def test_twenty_samples_are_listed(
    old: dict[str, Any], new: dict[str, Any], count: int, more: list[str]
) -> None:
    lines = told(old, new, pairs=pairs(moved("onnx_fp32", *range(count))))
    assert lines[0] == f"onnx_fp32: verdicts that changed: {count} of 60"
    assert [line for line in lines if line.startswith("  ")][20:] == more
    assert sum("  sample" in line for line in lines) == 20


def test_all_samples_are_compared_as_a_loop_compares_them(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    random = np.random.default_rng(0)
    z = [random.normal(size=5000).astype(np.float32) for _ in range(2)]
    z[1][::7], z[0][::11] = np.nan, np.inf
    t = float(old["threshold"]["logit"])
    count = sum(
        (np.isfinite(a) and float(a) >= t) != (np.isfinite(b) and float(b) >= t)
        for a, b in zip(*z, strict=True)
    )
    lines = differences(old, new, {"onnx_fp32": (z[0], z[1])})
    assert lines[0] == f"onnx_fp32: verdicts that changed: {count} of 5000"
    assert 1000 < count < 4000
    assert lines[-2].startswith("onnx_fp32: largest change of a logit: inf, sample ")


def test_a_logit_that_stays_nan_or_infinite_did_not_change(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    z = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    lines = differences(old, new, {"onnx_fp32": (z, z.copy())})
    assert len(lines) == 1 and lines[0].startswith("Nothing changed.")


@pytest.mark.parametrize("before, after", [(np.nan, -1.0), (-1.0, np.nan), (np.inf, -np.inf)])
def test_a_logit_that_becomes_or_ceases_to_be_a_number_changed(
    old: dict[str, Any], new: dict[str, Any], before: float, after: float
) -> None:
    pair = (np.array([0.0, before], np.float32), np.array([0.0, after], np.float32))
    lines = differences(old, new, {"onnx_fp32": pair})
    assert lines[:-1] == ["onnx_fp32: largest change of a logit: inf, sample 1"]


def test_each_report_s_own_threshold_gives_its_verdicts(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    """The logit 1.0678 lies between the new threshold and that of before."""
    assert old["threshold"]["logit"] < 1.0
    new["threshold"]["logit"] = 1.1
    lines = told(old, new)
    rows = [i for i, z in enumerate(logits()["onnx_fp32"]) if old["threshold"]["logit"] <= z < 1.1]
    assert lines[0] == (
        f"threshold: {old['threshold']['logit']:.4g} -> 1.1 ({1.1 - old['threshold']['logit']:+.4g})"
    )
    assert f"onnx_fp32: verdicts that changed: {len(rows)} of 60" in lines
    assert f"  sample {rows[-1]}: logit 1.06779659 positive -> 1.06779659 negative" in lines
    # onnx_fp16 is deployed with a threshold of its own, which did not move.
    assert old["variants"]["onnx_fp16"]["retuned_threshold"] is not None
    assert not [line for line in lines if line.startswith("onnx_fp16: verdicts")]


def test_a_threshold_of_its_own_gives_the_verdicts(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    new["variants"]["onnx_fp16"]["retuned_threshold"] = 3.5
    lines = told(old, new)
    own = old["variants"]["onnx_fp16"]["retuned_threshold"]
    assert f"onnx_fp16: threshold of its own: {own:.4g} -> 3.5" in lines
    above = int((logits()["onnx_fp16"] >= own).sum())
    assert f"onnx_fp16: verdicts that changed: {above} of 60" in lines


def test_listed_flips_are_compared_without_logits(old: dict[str, Any], new: dict[str, Any]) -> None:
    flips = new["variants"]["onnx_fp16"]["flips"]
    gone = flips["samples"].pop(0)
    flips["samples"].append(gone | {"index": 59, "name": "yes/059.png"})
    assert 59 not in [one["index"] for one in old["variants"]["onnx_fp16"]["flips"]["samples"]]
    assert differences(old, new, {}) == [
        "onnx_fp16: samples that flip in one of the reports only: 2",
        f"  sample {gone['index']} ({gone['name']}): flips no more",
        "  sample 59 (yes/059.png): flips now",
        LISTED,
    ]


def test_over_changed_data_no_sample_is_compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["data"] = {"data/golden/inputs.npy": "2" * 64, "data/golden/more.npy": "3" * 64}
    old["data"]["data/golden/labels.npy"] = "4" * 64
    new["samples"] = 61
    new["variants"]["onnx_fp16"]["flips"] |= {"total": 2, "samples": []}
    before = old["variants"]["onnx_fp16"]["flips"]["total"]
    assert differences(old, new, pairs(moved("onnx_fp32", 2))) == [
        "data changed: data/golden/inputs.npy",
        "data removed: data/golden/labels.npy",
        "data added: data/golden/more.npy",
        "samples: 60 -> 61",
        f"onnx_fp16: flips: {before} of 60 -> 2 of 60",
        "Compared: the figures of 6 variants, not sample by sample: the data is not the same.",
    ]


def test_case_toml_is_not_of_the_data(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["inputs"]["data/golden/case.toml"] = "1" * 64
    new["rules"]["flip_rate"] = 0.01
    new["policies"]["policy"] = "widest_gap"
    new["wanted_precision"] = 0.95
    assert told(old, new) == [
        "case.toml changed",
        "wanted precision: 0.9 -> 0.95",
        "policy: max_recall -> widest_gap",
        "rule flip_rate: 0.001 -> 0.01",
    ]


def test_where_it_ran(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["conditions"] |= {
        "mode": "docker", "release": "26.07", "device": "cuda", "gpu_name": "H100", "threads": 4,
        "why_mode": "another reason", "providers": {"onnx_fp32": "CUDAExecutionProvider"},
    }  # fmt: skip
    old["conditions"]["providers"] = {"onnx_fp32": "CPUExecutionProvider"}
    assert told(old, new) == [
        "mode: local -> docker",
        "release: none -> 26.07",
        "device: cpu -> cuda",
        "GPU: none -> H100",
        "threads: 2 -> 4",
        "what runs onnx_fp32: CPUExecutionProvider -> CUDAExecutionProvider",
    ]


def test_versions_image_by_image(old: dict[str, Any], new: dict[str, Any]) -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    old["conditions"]["versions"] = {
        "pytorch": {"image": f"pytorch 26.07 {a}", "torch": "2.13.0", "numpy": "2.2.6"},
        "tensorrt": {"image": f"tensorrt 26.07 {a}", "numpy": "2.2.6"},
    }
    new["conditions"]["versions"] = {
        "pytorch": {"image": f"pytorch 26.08 {b}", "torch": "2.14.0", "numpy": "2.2.6"},
        "tensorrt": {"image": f"tensorrt 26.07 {a}", "numpy": "2.2.7", "onnx": "1.21.0"},
    }
    assert told(old, new) == [
        "image in pytorch: pytorch 26.07 sha256:aaaaaaaaaaaa -> pytorch 26.08 sha256:bbbbbbbbbbbb",
        "torch in pytorch: 2.13.0 -> 2.14.0",
        "numpy in tensorrt: 2.2.6 -> 2.2.7",
        "onnx in tensorrt: none -> 1.21.0",
    ]


def test_versions_from_local_to_containers(old: dict[str, Any], new: dict[str, Any]) -> None:
    old["conditions"]["versions"] = {
        "none": {"numpy": "2.2.6", "torch": "2.13.0", "onnx": "1.21.0"}
    }
    new["conditions"]["versions"] = {
        "pytorch": {"numpy": "2.2.6", "torch": "2.14.0", "onnx": "1.21.0"},
        "tensorrt": {"numpy": "2.2.7", "onnx": "1.21.0"},
    }
    assert told(old, new) == ["numpy: 2.2.6 -> 2.2.6, 2.2.7", "torch: 2.13.0 -> 2.14.0"]


def test_another_triton(old: dict[str, Any], new: dict[str, Any]) -> None:
    for row in new["variants"].values():
        if row.get("served"):
            row["served"]["server"] |= {"version": "2.60.0", "native": True}
    assert told(old, new) == ["Triton: 2.51.0 (stand-in backend) -> 2.60.0"]


def test_what_goes_to_production(old: dict[str, Any], new: dict[str, Any]) -> None:
    was = old["recommendation"]
    new["recommendation"] |= {"variant": "onnx_fp16", "threshold": 9.5}
    new["decision"] |= {"exit": 0, "verdict": "released"}
    new["promotion"] = {
        "variant": "onnx_fp32",
        "threshold": 0.5,
        "failed_gates": [],
        "open_gates": [],
    }
    assert told(old, new) == [
        f"recommendation: {was['variant']} -> onnx_fp16",
        f"its threshold: {was['threshold']:.4g} -> 9.5",
        "promoted by hand: none -> onnx_fp32",
        "make gate: exit 4, the evidence is insufficient -> exit 0, released",
    ]


def test_variants_that_come_and_go(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["variants"]["onnx_fp32"] = new["variants"]["trt_fp32"] | {"reason": "it broke"}
    new["variants"]["onnx_bf16"] = new["variants"]["onnx_fp16"]
    new["variants"]["trt_fp16"]["reason"] = "no container"
    new["variants"]["onnx_fp8"] = new["variants"]["trt_int8"] | {"reason": "no GPU"}
    del new["variants"]["trt_int8"]
    new["conditions"]["providers"]["onnx_bf16"] = "CPUExecutionProvider"
    reasons = {name: row.get("reason") for name, row in old["variants"].items()}
    lines = differences(old, new, {})
    assert lines[:-1] == [
        "onnx_fp32: not measured any more: it broke",
        f"onnx_bf16: measured now; before it was not: {reasons['onnx_bf16']}",
        f"trt_fp16: still not measured, for another reason: {reasons['trt_fp16']} -> no container",
        "onnx_fp8: appeared, and is not measured: no GPU",
        "trt_int8: vanished: the new report does not know it",
    ]
    assert " in 5 (torch_fp32, torchscript_fp32, onnx_fp16," in lines[-1]


def test_quality_bound_and_size(old: dict[str, Any], new: dict[str, Any]) -> None:
    row, was = new["variants"]["onnx_fp32"], old["variants"]["onnx_fp32"]
    row["deviation"]["max_absolute"] = 0.25
    row["vs_labels"] |= {"precision": 0.75, "recall": None}
    row["claim"]["flip_rate_upper"] = 0.5
    row["precision_proof"]["file_bytes"] = 4001
    labels = was["vs_labels"]
    assert told(old, new) == [
        "onnx_fp32: largest deviation: 0 -> 0.25",
        f"onnx_fp32: precision against the labels: {labels['precision']:.4g} -> 0.75",
        f"onnx_fp32: recall against the labels: {labels['recall']:.4g} -> none",
        "onnx_fp32: upper bound of the flips in new data: "
        f"{was['claim']['flip_rate_upper']:.4g} -> 0.5",
        f"onnx_fp32: bytes of the file: {was['precision_proof']['file_bytes']} -> 4001",
    ]


def test_quality_is_that_of_the_deployed_threshold(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    row = new["variants"]["onnx_fp16"]
    row["vs_labels"]["precision"] = 0.1
    assert differences(old, new, pairs(logits())) == [f"Nothing changed. {ONE_BY_ONE}"]
    was = row["retuning"]["vs_labels"]["precision"]
    row["retuning"]["vs_labels"]["precision"] = 0.125
    assert told(old, new) == [f"onnx_fp16: precision against the labels: {was:.4g} -> 0.125"]


def test_numbers_are_told_apart(old: dict[str, Any], new: dict[str, Any]) -> None:
    old["variants"]["onnx_fp32"]["deviation"]["max_absolute"] = 0.1
    new["variants"]["onnx_fp32"]["deviation"]["max_absolute"] = 0.1 + 1e-12
    lines = told(old, new)
    assert lines == ["onnx_fp32: largest deviation: 0.10000000000000001 -> 0.10000000000100001"]


def test_gates(old: dict[str, Any], new: dict[str, Any]) -> None:
    row = new["variants"]["onnx_fp32"]
    parity = next(one for one in row["gates"] if one["gate"] == "parity")
    was = parity["state"]
    parity |= {"state": "failed", "found": "many flip"}
    row["gates"] = [one for one in row["gates"] if one["gate"] != "batch and slot"]
    row["gates"].append(parity | {"gate": "latency", "state": "passed", "found": "quick"})
    row["gates"][0]["found"] = "other words for the same state"
    assert was == "insufficient"
    assert told(old, new) == [
        "onnx_fp32: gate parity: insufficient -> failed (many flip)",
        "onnx_fp32: gate batch and slot: passed -> none",
        "onnx_fp32: gate latency: none -> passed (quick)",
    ]


@pytest.mark.parametrize(
    "factor, told_of", [(1.049, False), (1.06, True), (0.951, False), (0.94, True)]
)
def test_latency_beyond_five_percent(
    old: dict[str, Any], new: dict[str, Any], factor: float, told_of: bool
) -> None:
    new["variants"]["onnx_fp32"]["latency"]["1"]["latency_p50_ms"] *= factor  # 1 ms
    line = f"onnx_fp32: p50 in process at batch 1: 1 -> {factor:.4g} ms, {factor:.2f} times"
    told_lines = differences(old, new, pairs(logits()))[:-1]
    assert told_lines == ([line] if told_of else [])


@pytest.mark.parametrize(
    "factor, told_of", [(1.09, False), (1.11, True), (0.91, False), (0.5, True)]
)
def test_served_beyond_ten_percent(
    old: dict[str, Any], new: dict[str, Any], factor: float, told_of: bool
) -> None:
    for report, times in ((old, 1.0), (new, factor)):
        load = report["variants"]["onnx_fp32"]["served"]["load"]
        load["levels"][0]["latency_p50_ms"] = 2.0 * times
        load["best"]["throughput_per_s"] = 100.0 * times
    lines = [
        f"onnx_fp32: p50 in Triton with one request in flight: 2 -> {2 * factor:.4g} ms, {factor:.2f} times",
        f"onnx_fp32: best throughput in Triton: 100 -> {100 * factor:.4g} requests/s, {factor:.2f} times",
    ]
    assert differences(old, new, pairs(logits()))[:-1] == (lines if told_of else [])


def test_perf_analyzer_is_held_against_perf_analyzer_only(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    perf = {"levels": [{"latency_p50_ms": 50.0}], "best": {"throughput_per_s": 1.0}}
    new["variants"]["onnx_fp32"]["served"]["perf"] = perf
    assert differences(old, new, pairs(logits()))[:-1] == []
    slower = {"levels": [{"latency_p50_ms": 25.0}], "best": {"throughput_per_s": 1.0}}
    old["variants"]["onnx_fp32"]["served"]["perf"] = slower
    assert told(old, new) == [
        "onnx_fp32: p50 in Triton with one request in flight: 25 -> 50 ms, 2.00 times"
    ]


def test_not_asked_in_triton_any_more(old: dict[str, Any], new: dict[str, Any]) -> None:
    new["conditions"]["served"] = "no"
    for row in new["variants"].values():
        row["served"] = None
    assert told(old, new) == [
        "tried in Triton: yes -> no",
        "Triton: 2.51.0 (stand-in backend) -> none",
    ]


# ---- the command ---------------------------------------------------------------------------------


def write(folder: Path, report: dict[str, Any], z: dict[str, Any], proof: bool = True) -> Path:
    """A report with logits beside it, and what says that they are of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in z.items():
        np.save(folder / f"{name}.logits.npy", values)
        if proof:
            digest = sha256(folder / f"{name}.logits.npy")
            verdicts = folder / f"{name}.verdicts.json"
            verdicts.write_text(json.dumps({"inputs": {f"results/x/{name}.logits.npy": digest}}))
            report["inputs"][f"results/x/{name}.verdicts.json"] = sha256(verdicts)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder / "report.json"


def run(*arguments: Any) -> str:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("proof", [True, False])
def test_logits_beside_both_reports_are_compared(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], proof: bool
) -> None:
    paths = (
        write(tmp_path / "old", old, logits(), proof),
        write(tmp_path / "new", new, moved("onnx_fp32", 2), proof),
    )
    (tmp_path / "old/samples.json").write_text(json.dumps({"names": ["a"] * 2 + ["b"] * 58}))
    assert run(*paths) == (
        "onnx_fp32: verdicts that changed: 1 of 60\n"
        "  sample 2 (b): logit -2.79661012 negative -> 1.20338988 positive\n"
        "onnx_fp32: largest change of a logit: 4, sample 2 (b)\n"
        f"{ONE_BY_ONE}\n"
    )
    same = write(tmp_path / "same", deepcopy(old), logits(), proof)
    assert run(paths[0], same) == f"Nothing changed. {ONE_BY_ONE}\n"


def test_without_logits_it_says_so(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any]
) -> None:
    paths = write(tmp_path / "old", old, {}), write(tmp_path / "new", new, logits())
    assert run(*paths) == f"Nothing changed. {LISTED}\n"


def test_logits_of_another_run_are_not_taken(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any]
) -> None:
    """A copy of the old report in a folder in which make has written everything anew."""
    first = write(tmp_path / "results", old, logits())
    kept = first.rename(tmp_path / "results/old.json")
    after = write(tmp_path / "results", new, moved("onnx_fp32", 2))
    lines = run(kept, after).splitlines()
    assert lines[-1].endswith(
        "Compared: 60 samples one by one in 5 variants; only the flips that the reports list in 1 "
        "(onnx_fp32), because the logits of both runs do not lie beside them."
    )


def test_logits_changed_after_their_verdicts_are_not_taken(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any]
) -> None:
    paths = write(tmp_path / "old", old, logits()), write(tmp_path / "new", new, logits())
    np.save(tmp_path / "new/onnx_fp32.logits.npy", moved("onnx_fp32", 2)["onnx_fp32"])
    assert "only the flips that the reports list in 1 (onnx_fp32)" in run(*paths)


@pytest.mark.parametrize("length", [59, 61])
def test_logits_of_another_number_are_not_taken(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], length: int
) -> None:
    other = {name: np.zeros(length, np.float32) for name in MEASURED}
    paths = [write(tmp_path / one, old, other, proof=False) for one in ("old", "new")]
    assert run(*paths) == f"Nothing changed. {LISTED}\n"


def check_refused(old: Any, new: Any, *words: str) -> None:
    done = CliRunner().invoke(main, [str(old), str(new)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), "a traceback instead of a sentence"
    assert done.output.startswith("Error: ")
    for word in words:
        assert word in done.output, done.output


def test_what_is_refused(tmp_path: Path, old: dict[str, Any], monkeypatch: Any) -> None:
    good = write(tmp_path / "good", old, {})
    check_refused("", good, "OLD is empty", "make compare OLD=path/report.json")
    check_refused(tmp_path / "none.json", good, "none.json does not exist; name a report.json.\n")
    check_refused(good, tmp_path / "none.json", "none.json does not exist")
    check_refused(tmp_path, good, f"{tmp_path} is a folder; name a report.json")
    check_refused(good, good, "are the same file")
    monkeypatch.setenv("VERDICT_IMAGE", "pytorch 26.07 sha256:0")
    check_refused(
        tmp_path / "none.json", good, "inside the project, which is all that a container sees"
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "is no report.json: it holds no JSON object"),
        ("[]", "is no report.json: it holds no JSON object"),
        ('{"a": NaN}', "is no report.json: it holds no JSON object"),
        ("\udcff", "is no report.json: it holds no JSON object"),
        ("{}", "is no report.json: it has no schema or no variants"),
        ('{"step": "samples", "schema": 3}', "is no report.json: it has no schema or no variants"),
        (
            '{"schema": 2, "variants": {}}',
            "has schema 2, and only reports of schema 3 can be compared",
        ),
        (
            '{"schema": 4, "variants": {}}',
            "has schema 4, and only reports of schema 3 can be compared",
        ),
        (
            '{"schema": 3, "case": "golden", "variants": {}}',
            "is no whole report.json: it lacks data",
        ),
    ],
)
def test_what_is_no_report(tmp_path: Path, old: dict[str, Any], text: str, words: str) -> None:
    good, bad = write(tmp_path / "good", old, {}), tmp_path / "bad.json"
    bad.write_bytes(text.encode(errors="surrogateescape"))
    check_refused(bad, good, f"{bad} {words}")
    check_refused(good, bad, f"{bad} {words}")


def test_another_case_is_refused(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    new["case"] = "drowsy"
    paths = write(tmp_path / "old", old, {}), write(tmp_path / "new", new, {})
    check_refused(*paths, "is of the case golden", "of drowsy", "two reports of one case")


@pytest.mark.parametrize("key", ["data", "inputs", "rules", "promotion", "decision", "conditions"])
def test_a_report_cut_short_is_refused(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], key: str
) -> None:
    del new[key]
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps(new))
    check_refused(write(tmp_path / "old", old, {}), cut, f"it lacks {key}")
