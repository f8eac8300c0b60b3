"""The hardware check itself, rehearsed for real on the CPU, and what becomes of parts that go wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.variants import BY_NAME, REFERENCES
from tests.hardware import measure
from tests.hardware.machine import Machine

pytestmark = pytest.mark.xdist_group("rehearsal")  # what is set up once for all is set up once

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HERE_RUN = ["torch_fp32", "torchscript_fp32", "onnx_fp32", "onnx_fp16"]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """Printed text, JSON and the folder for temporary files, after a rehearsal that passed."""
    folder = tmp_path_factory.mktemp("rehearsal")
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, HERE / "measure.py", "--rehearse", "--out", folder / "new/out.json"],
        cwd=folder, env=os.environ | {"TMPDIR": str(scratch)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "new/out.json").read_text()), scratch


def test_the_rehearsal_has_a_row_for_everything(rehearsal: Any) -> None:
    _, content, scratch = rehearsal
    rows = {(row["part"], row["model"], row["what"]): row for row in content["rows"]}
    for model in ("digits", "resnet50"):
        for name in HERE_RUN:
            part = "onnxruntime" if name.startswith("onnx") else "torch"
            what = f"{name}, TF32 off" if name == REFERENCES["torch"].name else name
            check_figures(rows.pop((part, model, what)), name)
        check_figures(rows.pop(("torch", model, "torch_fp32, TF32 on")), "torch_fp32_tf32")
        assert rows.pop(("tensorrt", model, ""))["words"].startswith("needs tensorrt")
    assert rows.pop(("layers", "digits", ""))["state"] == "not run"
    for part in ("torch-refusal", "onnxruntime-refusal"):
        assert "was asked for" in rows.pop((part, "digits", "the GPU hidden"))["words"]
    alone = rows.pop(("onnxruntime-refusal", "digits", "alone in a process"))
    assert alone["words"] == "runs on CPUExecutionProvider"
    made = rows.pop(("make", "digits", "make all"))
    assert set(made["figures"]["providers"]) >= {*HERE_RUN, "onnx_int8"}
    assert made["figures"]["recommendation"] in BY_NAME
    assert rows == {}
    assert list(scratch.iterdir()) == []
    assert not (ROOT / "data/resnet50").exists()


def check_figures(row: dict[str, Any], name: str) -> None:
    """Every figure is there and possible; the reference is compared with nothing."""
    found = row["figures"]
    assert row["state"] == "ok", row
    assert found["samples"] == (899 if row["model"] == "digits" else 12)
    assert (found["flips"], found["depends"], found["nonfinite"]) == (0, [], 0)
    assert 0 <= found["deviation_mean_absolute"] <= found["deviation_max_absolute"] < 0.02
    assert (found["deviation_max_absolute"] > 1e-4) == name.endswith("fp16")
    assert {"again", "other slots", "batch 1", "loaded again"} < set(found["conditions"])
    assert list(found["latency"]) == ["1", "32" if row["model"] == "digits" else "4"]
    for times in found["latency"].values():
        assert 0 < times["latency_p50_ms"] <= times["latency_p99_ms"]
        assert ("times_as_fast" in times) == (name != REFERENCES["torch"].name)
        assert times.get("times_as_fast", 1) > 0
    if name.startswith("onnx"):
        assert {one for placed in found["nodes"].values() for one in placed} == {
            "CPUExecutionProvider"
        }


def test_the_rehearsal_cannot_be_taken_for_a_gpu(rehearsal: Any) -> None:
    text, content, _ = rehearsal
    assert (content["rehearsal"], content["device"], content["passed"]) == (True, "cpu", True)
    assert content["versions"]["torch"] and content["machine"]["cpu"]
    lines = text.splitlines()
    assert lines[0].startswith("**REHEARSAL on the CPU")
    table = [[cell.strip() for cell in line.split(" | ")] for line in lines if line[:2] == "| "]
    assert len(table) == 2 + len(content["rows"])
    assert {len(cells) for cells in table} == {11}
    assert {cells[3] for cells in table[2:]} == {"cpu, rehearsal", "-"}
    assert [cells for cells in table[2:] if cells[3] == "-" and cells[4:10] != ["-"] * 6] == []
    assert lines[-1].endswith("out.json.") and "0 failed" in lines[-1]


def test_without_a_gpu_it_says_so_and_ends_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "measure.py", "--out", tmp_path / "out.json"],
        env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "There is no NVIDIA GPU to measure: there is no nvidia-smi. Run this where there is one, or "
        "with --rehearse, which tries the check itself on the CPU.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs planted parts as the check's tasks; exit code and JSON."""
    found = Machine({"gpus": [], "cpu": "c", "processors": 1, "system": "s", "python": "3",
                     "variables": {}}, {}, {"numpy"}, {"torch": "it does not import: no"})  # fmt: skip
    monkeypatch.setattr(measure, "CHILD", HERE / "planted.py")
    monkeypatch.setenv("PLANTED_PID", str(tmp_path / "pid"))
    monkeypatch.setattr(measure, "look", lambda rehearse: found)

    def run(*parts: str, seconds: int = 60, needs: tuple[str, ...] = ("numpy",)) -> Any:
        tasks = tuple(measure.Task(part, "digits", needs, seconds) for part in parts)
        monkeypatch.setattr(measure, "TASKS", tasks)
        out = tmp_path / "out.json"
        code = measure.main(["--rehearse", "--out", str(out)])
        return code, json.loads(out.read_text())

    return run


def told(content: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        tuple(row[key] for key in ("part", "what", "state", "words")) for row in content["rows"]
    ]


def test_parts_that_fail_and_crash_are_rows_and_the_others_go_on(plant: Any, capsys: Any) -> None:
    code, content = plant("raising", "crashing", "outside", "silent", "lacking")
    assert (code, content["passed"]) == (1, False)
    rows = told(content)
    assert rows[:3] == [
        ("raising", "first", "failed", "ZeroDivisionError('division by zero')"),
        ("raising", "second", "ok", ""),
        ("crashing", "before", "ok", ""),
    ]
    assert rows[3][:3] == ("crashing", "", "failed")
    assert rows[3][3].startswith("was ended by SIGABRT; last words: ")
    assert rows[4][3] == "exit code 1; last words: ModuleNotFoundError: no"
    assert rows[5][2:] == ("failed", "ended without a row")
    assert rows[6][2] == "failed", "a module that nobody knows is a fault, not a missing package"
    assert rows[7][2:] == ("not run", "needs onnxconverter-common")
    assert "2 rows passed, 5 failed, 1 were not run." in capsys.readouterr().out


def test_a_part_that_hangs_is_ended_with_what_it_started(plant: Any, tmp_path: Path) -> None:
    code, content = plant("hanging", seconds=3)
    assert (code, told(content)[0][3]) == (1, "did not end within 3 s")
    left = Path("/proc", (tmp_path / "pid").read_text(), "cmdline")
    assert not left.exists() or left.read_text() == "", "ended, if perhaps not yet waited for"


def test_nothing_that_could_run_is_no_pass(plant: Any, capsys: Any) -> None:
    code, content = plant("raising", needs=("torch", "tensorrt"))
    assert (code, content["passed"]) == (1, False)
    assert told(content)[0][2:] == ("not run", "needs torch (it does not import: no), tensorrt")
    assert "Nothing could run, so nothing is shown." in capsys.readouterr().out


def test_planted_faults_fail_the_check(plant: Any) -> None:
    code, content = plant("shifted", "rough", "elsewhere", "slotted", "endless")
    assert code == 1
    words = {part: said for part, _, state, said in told(content) if state == "failed"}
    assert len(words) == 5
    assert "verdicts differ from the CPU's, first in sample " in words["shifted"]
    assert words["rough"].startswith("a logit is off by 0.001; true float32 stays within 0.00012")
    assert words["elsewhere"] == "CUDAExecutionProvider ran it, and cpu was asked for"
    assert words["slotted"].endswith("a logit moves by 9 with batch, slot or run")
    assert words["endless"].startswith("899 of 899 logits are NaN or infinite")
