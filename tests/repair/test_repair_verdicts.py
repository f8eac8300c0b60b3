"""The repair as a step, on models in which it is known what float16 or int8 spoils."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from scripts.backends.onnxruntime import convert_mixed
from scripts.data import read_samples
from scripts.data.parts import calibration_rows, half
from scripts.graphs.fp16 import convert
from scripts.graphs.half_rounding import rounded
from scripts.graphs.session import open_session, run_session
from scripts.graphs.shares import shares
from scripts.repair import repair_verdicts
from scripts.repair.repair_verdicts import HALF, PLAIN
from scripts.report import draw_pictures
from tests import planted

TOML = """
[model]
factory = "model.py:build"
weights = "weights.pth"
head = "logit"
max_batch = 64
[[inputs]]
name = "x"
shape = {shape}
dtype = "float32"
file = "inputs.npy"
[labels]
file = "labels.npy"
"""
R = Path("results/toy")
SOURCE = Path("model_repository/toy_onnx_fp32/1/model.onnx")


def run(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString(), "cpu", 2)
    return run_session(session, {"x": inputs})[:, 0]


def middle_gap(logits: np.ndarray) -> float:
    """A threshold between the two middle logits, as far from both."""
    low, high = np.sort(logits.astype(np.float64))[len(logits) // 2 - 1 : len(logits) // 2 + 1]
    return float((low + high) / 2)


def write_case(model: onnx.ModelProto, inputs: np.ndarray) -> tuple[np.ndarray, float]:
    """The files that the step reads; (the reference's logits, the threshold)."""
    folder = Path("data/toy")
    for path in (folder, R, SOURCE.parent):
        path.mkdir(parents=True)
    (folder / "case.toml").write_text(TOML.format(shape=list(inputs.shape[1:])))
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", np.arange(len(inputs), dtype=np.uint8) % 2)
    invoke(read_samples.main, "data/toy/case.toml", "--out", R / "samples.json")
    onnx.save_model(model, SOURCE)
    reference = run(model, inputs)
    threshold = middle_gap(reference)
    np.save(R / "torch_fp32.logits.npy", reference)
    np.save(R / "variant.logits.npy", reference)  # only its hash is taken
    (R / "threshold.json").write_text(json.dumps({"metrics": {"logit": threshold}}))
    return reference, threshold


def invoke(command: Any, *arguments: Any) -> str:
    done = CliRunner().invoke(command, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def repaired(variant: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(what was decided, the culprits, the line that was printed)."""
    out = R / f"{variant}_mixed.repair.json"
    line = invoke(
        repair_verdicts.main, "data/toy/case.toml", "--variant", variant,
        "--samples", R / "samples.json", "--source", SOURCE, "--logits", R / "variant.logits.npy",
        "--reference", R / "torch_fp32.logits.npy", "--threshold", R / "threshold.json",
        "--mode", "local", "--device", "cpu", "--out", out,
    )  # fmt: skip
    culprits = json.loads((R / f"{variant}.culprits.json").read_text())
    return json.loads(out.read_text()), culprits, line


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "make", [planted.overflow, planted.last_layer, planted.together, planted.shared_weight,
             planted.many_operators],
)  # fmt: skip
def test_exactly_the_planted_nodes_are_kept(make: Any) -> None:
    subject = make(n=1600)
    reference, threshold = write_case(subject.model, subject.inputs)
    right = reference >= threshold
    low = run(rounded(convert(subject.model)), subject.inputs)
    held = ~half(np.arange(len(right)) % 2 == 1)
    plain = run(convert(subject.model), subject.inputs)
    flipped = ((low >= threshold) != right) | ~np.isfinite(low) | ((plain >= threshold) != right)
    assert flipped[held].any() and flipped[~held].any()
    found, culprits, line = repaired("onnx_fp16")
    assert found["made"], found["reason"]
    assert set(found["kept"]) == subject.kept
    assert found["ways"] == [PLAIN, HALF]
    assert found["held_out"]["flips_before"] == flipped[held].sum()
    assert found["held_out"]["flips_after"] <= 1
    assert found["tuning"]["flips_after"] == 0
    assert found["runs"] == 2 * found["conversions"] > 0
    assert line.startswith(f"onnx_fp16: {found['reason']} (")
    first = [name for one in culprits["segments"][:3] for name in one["nodes"]]
    assert subject.kept & set(first)
    out = Path("model_repository/toy_onnx_fp16_mixed/1/model.onnx")
    invoke(convert_mixed.main, "data/toy/case.toml", "--samples", R / "samples.json",
           "--repair", R / "onnx_fp16_mixed.repair.json", "--source", SOURCE, "--out", out)  # fmt: skip
    mended = onnx.load(out)
    assert 0 < shares(mended)["node_share_float16"] < 1
    left = (run(rounded(mended), subject.inputs) >= threshold) != right
    assert left.sum() <= found["held_out"]["flips_after"] and not left[~held].any()
    picture = R / "onnx_fp16.culprits.png"
    invoke(
        draw_pictures.main,
        "--variant",
        "onnx_fp16",
        "--results",
        R,
        "--reference",
        "torch_fp32",
        "culprits",
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def gentle() -> planted.Planted:
    """A model that loses nothing in float16: small whole numbers throughout."""
    subject = planted.shared_weight()
    inputs = np.round(subject.inputs[:, :16] / 64)
    for tensor in subject.model.graph.initializer:
        values = np.round(onnx.numpy_helper.to_array(tensor) * 4) / 4
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return planted.Planted(subject.model, inputs.astype(np.float32), "nothing", frozenset())


def test_where_nothing_flips_nothing_is_made() -> None:
    subject = gentle()
    write_case(subject.model, subject.inputs)
    found, culprits, line = repaired("onnx_fp16")
    assert not found["made"] and found["kept"] == []
    assert found["reason"] == "nothing to repair: no verdict flips on the tuning half"
    assert culprits["segments"] and line.startswith("onnx_fp16: nothing to repair")
    done = CliRunner().invoke(
        convert_mixed.main,
        ["data/toy/case.toml", "--samples", str(R / "samples.json"), "--repair",
         str(R / "onnx_fp16_mixed.repair.json"), "--source", str(SOURCE), "--out", "model.onnx"],
    )  # fmt: skip
    assert done.exit_code == 1
    assert "onnx_fp16_mixed: nothing to repair" in done.output
    assert not Path("model.onnx").exists()


def arranged(subject: planted.Planted, flips_held_out: bool) -> np.ndarray:
    """The inputs in an order in which all that flip stand in one half."""
    reference = run(subject.model, subject.inputs)
    threshold = middle_gap(reference)
    low = run(rounded(convert(subject.model)), subject.inputs)
    plain = run(convert(subject.model), subject.inputs)
    right = reference >= threshold
    flipped = ((low >= threshold) != right) | ((plain >= threshold) != right) | ~np.isfinite(low)
    held = ~half(np.arange(len(right)) % 2 == 1)
    assert 0 < flipped.sum() <= min(held.sum(), (~held).sum())
    order = np.empty(len(right), int)
    place = np.argsort(held if flips_held_out else ~held, kind="stable")[::-1]
    order[place] = np.argsort(~flipped, kind="stable")
    return subject.inputs[order]


def test_a_repair_that_helps_only_where_it_was_sought_is_not_made() -> None:
    subject = planted.last_layer()
    write_case(subject.model, arranged(subject, flips_held_out=False))
    found, _, _ = repaired("onnx_fp16")
    assert not found["made"]
    assert set(found["kept"]) == subject.kept
    assert found["held_out"]["flips_before"] == found["held_out"]["flips_after"] == 0
    assert found["reason"] == (
        f"not repaired: 1 of {found['nodes']} nodes kept in float32 repairs the tuning half, and takes the "
        "flips on the held-out half from 0 to 0: no drop"
    )


def test_flips_on_the_held_out_half_alone_tune_nothing() -> None:
    subject = planted.last_layer()
    write_case(subject.model, arranged(subject, flips_held_out=True))
    found, _, _ = repaired("onnx_fp16")
    assert not found["made"] and found["kept"] == []
    assert found["reason"].startswith("nothing to repair: no verdict flips on the tuning half, ")
    assert found["held_out"]["flips_before"] > 0


def test_a_source_that_itself_flips_cannot_be_repaired() -> None:
    subject = planted.last_layer()
    reference, threshold = write_case(subject.model, subject.inputs)
    np.save(R / "torch_fp32.logits.npy", 2 * np.float32(threshold) - reference)
    found, _, _ = repaired("onnx_fp16")
    assert found["reason"] == "not repaired: with every node in float32 verdicts still flip"
    assert not found["made"]


def test_int8_is_repaired_and_its_calibration_judges_nothing() -> None:
    random = np.random.default_rng(3)
    spread = np.where(np.arange(32) < 31, 0.02, 4.0)  # one channel takes the whole range
    inputs = (random.normal(size=(400, 32)) * spread).astype(np.float32)
    g = planted._Graph(3)
    g.add(
        "MatMul", "first", "x", g.store("w1", random.normal(size=(32, 16)) * (spread < 1)[:, None])
    )
    g.add("Tanh", "tanh", "first")
    g.add("MatMul", "second", "tanh", g.normal("w2", 16, 16, scale=0.3))
    g.add("MatMul", "output", "second", g.normal("w3", 16, 1))
    write_case(g.model(32), inputs)
    found, _, _ = repaired("onnx_int8")
    assert found["made"], found["reason"]
    assert found["kept"] == ["first"]
    labels = np.arange(400) % 2 == 1
    part = half(labels).sum() - len(calibration_rows(labels))
    assert found["tuning"]["samples"] == part
    assert found["ways"] == [PLAIN]
    out = Path("model_repository/toy_onnx_int8_mixed/1/model.onnx")
    invoke(convert_mixed.main, "data/toy/case.toml", "--samples", R / "samples.json",
           "--repair", R / "onnx_int8_mixed.repair.json", "--source", SOURCE, "--out", out)  # fmt: skip
    assert 0 < shares(onnx.load(out))["weight_share_int8"] < 1
    notes = {one.key: one.value for one in onnx.load(out).metadata_props}
    assert notes["calibration_samples"] == str(len(calibration_rows(labels)))
