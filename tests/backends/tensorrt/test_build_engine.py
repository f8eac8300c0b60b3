"""The trtexec command line, and what becomes of a build that fails.

trtexec itself needs a GPU. Here a shell script of that name records its arguments and ends as told;
the flags are held against lists of what trtexec 10.3 and 11.1 accept.
"""

import re
from pathlib import Path

import pytest
from click.testing import Result

from scripts.backends.tensorrt import build_engine
from tests.toy_case import Toy, run

# Flags that are told the same in trtexec 10.3, 10.8, 10.13, 10.16, 11.0 and 11.1.
PORTABLE = {
    "--onnx", "--stronglyTyped", "--saveEngine", "--skipInference", "--minShapes", "--optShapes",
    "--maxShapes", "--timingCacheFile", "--profilingVerbosity", "--noTF32", "--memPoolSize",
    "--builderOptimizationLevel", "--versionCompatible", "--hardwareCompatibilityLevel",
}  # fmt: skip
# Gone since 11.0: an unknown flag ends trtexec with exit code 1.
REMOVED = {"--fp16", "--bf16", "--int8", "--fp8", "--best", "--calib", "--precisionConstraints",
           "--layerPrecisions", "--layerOutputTypes", "--inputIOFormats"}  # fmt: skip
ONNX = Path("model_repository/toy_onnx_fp16/1/model.onnx")
PLAN = Path("model_repository/toy_trt_fp16/1/model.plan")
LOG = Path("results/toy/trt_fp16.build.log")
WRITE_PLAN = 'for a in "$@"; do case $a in --saveEngine=*) echo plan > "${a#*=}";; esac; done'


@pytest.fixture
def trtexec(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Plants a trtexec that runs `body` after recording its arguments."""
    ONNX.parent.mkdir(parents=True)
    ONNX.write_bytes(b"onnx")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def plant(body: str) -> None:
        script = folder / "trtexec"
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\n{body}\n')
        script.chmod(0o755)

    return plant


def build(toy: Toy) -> Result:
    return run(
        build_engine.main, toy.toml, "--variant", "trt_fp16", "--model", ONNX, "--timing-cache",
        "results/.timing-26.07.cache", "--log", LOG, "--out", PLAN,
    )  # fmt: skip


def test_the_command_line(toy: Toy, trtexec, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trtexec(f"echo '&&&& PASSED'; {WRITE_PLAN}")
    done = build(toy)
    assert done.exit_code == 0, done.output
    assert re.fullmatch(
        r"trt_fp16: engine of 5e-06 MB for batches 1 to 4, built in \d+ s\n", done.output
    )
    recorded = (tmp_path / "argv").read_text().splitlines()
    flags = {argument.partition("=")[0] for argument in recorded}
    assert flags <= PORTABLE
    assert not flags & REMOVED
    assert recorded[:-1] == [
        f"--onnx={ONNX}",
        "--stronglyTyped",
        "--noTF32",
        "--minShapes=x:1x2",
        "--optShapes=x:4x2",
        "--maxShapes=x:4x2",
        "--timingCacheFile=results/.timing-26.07.cache",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    assert recorded[-1].startswith("--saveEngine=model_repository/toy_trt_fp16/1/.model.plan.")
    assert PLAN.read_text() == "plan\n"
    lines = LOG.read_text().splitlines()
    assert "--stronglyTyped" in lines[0], "the log says what was run"
    assert lines[1:] == ["&&&& PASSED"]


def test_two_inputs_stand_in_one_profile(toy: Toy, trtexec, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    extra = (
        '[[inputs]]\nname = "y"\nshape = [3, 5]\ndtype = "int64"\nfile = "inputs.npy"\n\n[labels]'
    )
    toy.change("[labels]", extra)
    trtexec(WRITE_PLAN)
    assert build(toy).exit_code == 0
    recorded = (tmp_path / "argv").read_text()
    assert "--minShapes=x:1x2,y:1x3x5\n--optShapes=x:4x2,y:4x3x5\n" in recorded


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "echo '[I] parsing'; echo '[E] Error[4]: node fc: kinds differ'; echo '&&&& FAILED'; exit 1",
            ["trtexec failed with exit code 1: [", "Error[4]: node fc: kinds differ"],
        ),
        ("echo '[I] tactic'; kill -9 $$", ["was ended by SIGKILL (the usual cause is too little"]),
        ("echo before; exit 139", ["was ended by SIGSEGV", "before"]),
        ("exit 3", ["failed with exit code 3: it printed nothing."]),
    ],
)
def test_a_build_that_fails_keeps_its_words_and_the_earlier_engine(
    toy: Toy,
    trtexec,
    body: str,
    words: list[str],  # type: ignore[no-untyped-def]
) -> None:
    PLAN.parent.mkdir(parents=True)
    PLAN.write_text("earlier")
    trtexec(f"{WRITE_PLAN}; {body}")
    done = build(toy)
    assert done.exit_code == 1
    for word in [*words, f"The whole log stands in {LOG}."]:
        assert word in done.output
    assert PLAN.read_text() == "earlier"
    assert [path.name for path in PLAN.parent.iterdir()] == ["model.plan"]


def test_the_exit_code_decides_not_a_printed_word(toy: Toy, trtexec) -> None:  # type: ignore[no-untyped-def]
    trtexec(f"{WRITE_PLAN}; echo 'a layer named &&&& FAILED'")
    assert build(toy).exit_code == 0
    trtexec(f"{WRITE_PLAN}; echo '&&&& PASSED'; exit 1")
    assert build(toy).exit_code == 1


def test_success_without_an_engine_is_a_failure(toy: Toy, trtexec) -> None:  # type: ignore[no-untyped-def]
    trtexec("exit 0")
    done = build(toy)
    assert done.exit_code == 1
    assert "says that it succeeded and wrote no engine" in done.output
    assert not PLAN.exists()


def test_no_trtexec_says_where_it_is_to_be_had(toy: Toy, trtexec, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = build(toy)
    assert done.exit_code == 1
    assert "trtexec is neither on PATH nor in /opt/tensorrt/bin" in done.output
    assert "make all MODE=docker" in done.output
