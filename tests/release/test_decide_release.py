"""`make gate`: one line and an exit code, from report.json, by the host's Python alone."""

import json
import shutil
import subprocess
import sys

import pytest

from scripts.release.gates import EXITS

PYTHONS = {"ours": sys.executable, "the host's": shutil.which("python3")}


@pytest.fixture(params=[name for name, path in PYTHONS.items() if path])
def gate(request, tmp_path, environment):
    """Run it without site-packages, in another folder than the project's."""

    def run(*arguments):
        return subprocess.run(
            [PYTHONS[request.param], "-S", "-m", "scripts.release.decide_release", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, env=environment,
        )  # fmt: skip

    return run


def report(folder, code, words="some words"):
    path = folder / "report.json"
    decision = {"exit": code, "verdict": EXITS[code], "words": words}
    path.write_text(json.dumps({"case": "toy", "decision": decision}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (0, "toy: released: some words\n"),
        (2, "toy: only the fallback passes: some words (exit 2)\n"),
        (3, "toy: nothing passes: some words (exit 3)\n"),
        (4, "toy: the evidence is insufficient: some words (exit 4)\n"),
    ],
)
def test_one_line_and_the_exit_code(gate, tmp_path, code, line):
    done = gate(report(tmp_path, code))
    assert (done.returncode, done.stdout, done.stderr) == (code, line, "")


def test_every_exit_of_the_gates_is_tested():
    assert set(EXITS) == {0, 2, 3, 4}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "FileNotFoundError"),
        ("", "JSONDecodeError"),
        ('{"case": "toy", "decision"', "JSONDecodeError"),
        ('{"case": "toy", "schema": 1}', "KeyError: 'decision'"),
        ('{"case": "toy", "decision": null}', "TypeError"),
        ('{"decision": {"exit": 0, "verdict": "released", "words": ""}}', "KeyError: 'case'"),
        ('{"case": "toy", "decision": {"exit": "soon"}}', "ValueError"),
        ("[]", "TypeError"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_without_a_report_it_says_what_to_run_and_exits_1(gate, tmp_path, content, why):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    done = gate(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"Error: {path} is no report to decide by ({why}")
    assert done.stderr.endswith("Run `make all` first.\n")


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--nonsense", "a")])
def test_a_wrong_call_is_not_taken_for_an_answer(gate, arguments):
    done = gate(*arguments)
    assert done.returncode == 1
    assert "usage: " in done.stderr


def test_help_is_no_error(gate):
    done = gate("--help")
    assert done.returncode == 0
    assert "report" in done.stdout
