"""The rules of the hardware check: what passes, what does not, and what is said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.verdicts.heads import log_odds
from tests.hardware import (
    judge,
    machine,
    make_all,
    measure,
    parts,
    refusal,
    resnet50,
    subjects,
    table,
)


def found(**changes: Any) -> dict[str, Any]:
    """What was found of a variant that passes; |z| <= 9, so that exact means within 1e-4."""
    conditions = {"again": {"flips": 0}, "loaded again": {"flips": 0}}
    fine = {"provider": "CUDAExecutionProvider", "samples": 5, "nonfinite": 0, "flips": 0,
            "flipped": [], "deviation_max_absolute": 9e-5, "reference_max_absolute": 9.0,
            "depends": [], "depends_max_absolute": 9e-5, "conditions": conditions}  # fmt: skip
    return fine | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"flipped": [3], "depends": [3]}, []),  # the reference's own noise
        ({"flipped": [3, 4]}, ["1 verdicts differ from the CPU's, first in sample 4"]),
        ({"depends": [2, 3]}, ["1 verdicts depend on batch, slot or run, first sample 2"]),
        ({"deviation_max_absolute": 2e-4}, ["a logit is off by 0.0002; true float32 stays within 0.0001"]),
        ({"depends_max_absolute": 2e-4}, ["a logit moves by 0.0002 with batch, slot or run"]),
        ({"conditions": {"again": {"flips": 1}, "loaded again": {"flips": 1}}}, ["2 verdicts change from one run to the next"]),
        ({"provider": "CPUExecutionProvider"}, ["CPUExecutionProvider ran it, and cuda was asked for"]),
        ({"nonfinite": 1, "deviation_max_absolute": None}, ["1 of 5 logits are NaN or infinite"]),
    ],
)  # fmt: skip
def test_what_float32_is_held_to(changes: dict[str, Any], words: list[str]) -> None:
    assert judge.complaints(found(**changes), "cuda", True, True, [3]) == words


def test_what_float16_and_tf32_are_held_to() -> None:
    rough = found(flipped=[1], deviation_max_absolute=0.1, depends_max_absolute=0.1)
    assert judge.complaints(rough, "cuda", False, True, []) == []
    assert len(judge.complaints(rough | {"depends": [1]}, "cuda", False, True, [])) == 1
    assert judge.complaints(rough | {"depends": [1]}, "cuda", False, False, []) == []
    assert len(judge.complaints(rough | {"nonfinite": 1}, "cuda", False, False, [])) == 1


def test_where_something_ran() -> None:
    for provider in ("torch on cuda", "TorchScript on cuda", "CUDAExecutionProvider", "TensorRT"):
        assert judge.is_on(provider, "cuda") and not judge.is_on(provider, "cpu")
    for provider in ("torch on cpu", "CPUExecutionProvider"):
        assert judge.is_on(provider, "cpu") and not judge.is_on(provider, "cuda")
    here, there = "CUDAExecutionProvider", "CPUExecutionProvider"
    assert judge.misplaced({"FusedConv": {here: 3}, "Gather": {there: 2}}, "cuda") == []
    assert judge.misplaced({"Conv": {here: 3, there: 1}}, "cuda") == [
        "1 Conv ran on CPUExecutionProvider, and cuda was asked for"
    ]
    assert len(judge.misplaced({"Gather": {here: 1}}, "cuda")) == 1


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """To the 10 bits of mantissa that TF32 has."""
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) >> 13 << 13).view(torch.float32)


def test_the_bound_of_float32_lies_between_other_sums_and_tf32() -> None:
    model = resnet50.seeded((1, 1, 1, 1))
    images = torch.from_numpy(subjects.pictures(8, 64))

    def logits(batch: int) -> Any:
        with torch.inference_mode():
            raw = torch.cat([model(part) for part in images.split(batch)]).numpy()
        return log_odds(raw, "multiclass", 0).astype(np.float32)

    reference, other = logits(8), logits(1)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.weight.data = rounded(module.weight.data)
            module.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))
    for z, exact in ((other, True), (logits(8), False)):
        told = judge.compared(z, reference, subjects.widest_gap(reference))
        ratio = told["deviation_max_absolute"] / (1 + told["reference_max_absolute"])
        assert (ratio < judge.EXACT / 5) if exact else (ratio > judge.EXACT * 2), ratio


def test_the_network_has_the_size_and_is_the_same_each_time() -> None:
    first, second = resnet50.seeded(), resnet50.seeded()
    assert sum(one.numel() for one in first.parameters()) == 25_557_032
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_widest_gap_in_the_middle() -> None:
    assert subjects.widest_gap(np.array([-90, 0, 1, 2, 5, 6, 7, 80], np.float32)) == 3.5


def test_the_table_of_a_gpu() -> None:
    gpu = {"name": "NVIDIA X", "compute_capability": "9.0", "memory": "1 MiB", "driver": "580.1"}
    facts = {"gpus": [gpu], "cpu": "c", "processors": 2, "system": "Linux", "python": "3.12.1",
             "variables": {"NVIDIA_TF32_OVERRIDE": "0"}}  # fmt: skip
    figures = found(deviation_mean_absolute=1e-5, latency={"1": {"latency_p50_ms": 1.5}, "32": {
        "latency_p50_ms": 30.0, "times_as_fast": 2.0}})  # fmt: skip
    row = {"part": "p", "model": "m", "what": "w", "state": "failed", "words": "a | b\nc"}
    content = {"rehearsal": False, "machine": facts, "versions": {"b": "2", "a": "1"}}
    text = table.get_table(content | {"rows": [row | {"figures": figures}]})
    assert text.splitlines()[0] == "**Measured on NVIDIA X.**"
    assert "GPU: NVIDIA X, compute capability 9.0, 1 MiB, driver 580.1. CPU: c, 2" in text
    assert "Set: NVIDIA_TF32_OVERRIDE=0." in text and "Versions: a 1, b 2." in text
    assert text.splitlines()[-1] == (
        "| p | m | w | gpu | 1e-05 | 9e-05 | 0 of 5 | 0 of 5, 9e-05 | 1.5 ms | 30 ms, 2.00x | "
        "failed: a \\| b c |"
    )


def test_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA X, 9.0, 580.1, 81559 MiB'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.gpus() == ([{"name": "NVIDIA X", "compute_capability": "9.0",
                                "driver": "580.1", "memory": "81559 MiB"}], "")  # fmt: skip
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert machine.gpus() == ([], "nvidia-smi says: no devices were found")
    (tmp_path / "tensorrt.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = machine.look(rehearse=False)
    assert "numpy" in told.has and told.versions["torch"] == torch.__version__
    assert told.lacks(("numpy", "tensorrt", "x")).startswith("tensorrt (it does not import: ")
    if not torch.cuda.is_available():
        assert told.lacks(("torch with CUDA",)).startswith("torch with CUDA (torch ")
        assert machine.look(rehearse=True).lacks(("torch with CUDA", "onnxruntime-gpu")) == ""


def test_refusals_and_makes() -> None:
    cuda, told = "CUDAExecutionProvider", {"refused": "No."}
    assert refusal.judge(told, 0, True, cuda) == ""
    assert refusal.judge({"provider": "C"}, 0, True, cuda) == "runs on C, and nothing is said"
    assert refusal.judge({}, 1, True, cuda).startswith("the process ended with exit code 1")
    assert refusal.judge({"provider": cuda}, 0, False, cuda) == ""
    assert refusal.judge({"provider": "C"}, 0, False, cuda) == f"runs on C and not on {cuda}"
    assert refusal.judge(told, 0, False, cuda) == "No."
    made = {"providers": {"torch_fp32": "torch on cuda", "onnx_fp32": cuda}, "recommendation": "o"}
    assert make_all.judge(made, "cuda") == ""
    assert make_all.judge(made | {"recommendation": None}, "cuda") == "no variant passes every gate"
    made["providers"]["onnx_fp32"] = "CPUExecutionProvider"
    assert "was run: onnx_fp32 by CPUExecutionProvider" in make_all.judge(made, "cuda")


def test_every_part_is_a_task() -> None:
    assert {task.part for task in measure.TASKS} == set(parts.PARTS)
