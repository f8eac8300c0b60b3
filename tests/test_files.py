"""The contract for files: whole or absent, whatever stops the writer; hashed; finite JSON only."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scripts.files import hashes, read_json, relative, sha256, versions, write_json, writing

OLD = "the old content\n"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/a.json from an earlier run."""
    monkeypatch.chdir(tmp_path)
    path = Path("results/a.json")
    path.parent.mkdir()
    path.write_text(OLD)
    return path


def untouched(path: Path) -> None:
    assert os.listdir(path.parent) == [path.name]
    assert path.read_text() == OLD


def test_a_good_block_replaces_the_file_and_leaves_nothing_else(old: Path) -> None:
    with writing(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == OLD, "the old file stands until the block has ended"
        assert temporary.parent == old.parent, "a rename needs the same disk"
    assert (old.read_text(), os.listdir(old.parent)) == ("new", ["a.json"])


def test_the_folder_is_made(tmp_path: Path) -> None:
    with writing(tmp_path / "a/b/c.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a/b/c.txt").read_text() == "x"


@pytest.mark.parametrize(
    "error", [ValueError, OSError, MemoryError, KeyboardInterrupt, SystemExit, click.ClickException]
)
def test_an_exception_leaves_the_old_file(old: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), writing(old) as temporary:
        temporary.write_text("half")
        raise error("stop")
    untouched(old)


def test_a_block_that_writes_nothing_leaves_the_old_file(old: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(old):
        pass
    untouched(old)


def test_an_exception_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError), writing(tmp_path / "new.txt") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


SLEEPER = """
import sys, time
from pathlib import Path
from scripts.files import writing
with writing(Path("results/a.json")) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def stopped_in_the_middle(environment: dict[str, str], number: signal.Signals) -> None:
    """Send a signal to a process that has written half of its file."""
    command = [sys.executable, "-c", SLEEPER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            assert len(os.listdir("results")) == 2, "it is in the middle"
            process.send_signal(number)
            assert process.wait(timeout=20) != 0
        finally:
            process.kill()


def test_ctrl_c_in_the_middle_leaves_the_old_file(old: Path, environment: dict[str, str]) -> None:
    stopped_in_the_middle(environment, signal.SIGINT)
    untouched(old)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_signal_leaves_half_a_file_under_its_name(
    old: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    stopped_in_the_middle(environment, number)
    assert old.read_text() == OLD


def little_disk() -> None:
    """No file of the process may grow beyond 1000 bytes: writing fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


WRITERS = {
    "text": "temporary.write_text('x' * 5000)",
    "json": "write_json(Path('results/a.json'), {'values': list(range(5000))})",
    "array": "numpy.save(open(temporary, 'wb'), numpy.zeros(5000))",
    "memmap": "numpy.lib.format.open_memmap(temporary, 'w+', 'f8', (5000,)).flush()",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file(
    old: Path, environment: dict[str, str], writer: str
) -> None:
    code = f"""
import numpy
from pathlib import Path
from scripts.files import writing, write_json
with writing(Path("results/a.json")) as temporary:
    {WRITERS[writer]}
print("not reached")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        preexec_fn=little_disk,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "not reached" not in done.stdout, done
    untouched(old)


def test_a_full_disk_is_told_in_a_sentence(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = """
import click
from pathlib import Path
from scripts.files import write_json
@click.command()
def main():
    write_json(Path("results/a.json"), {"values": list(range(5000))})
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        preexec_fn=little_disk,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ") and "results/a.json" in done.stderr


# ---- hashes and paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1 << 22, (1 << 22) + 1])
def test_sha256_is_that_of_all_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_paths_are_recorded_relative_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project/data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert relative(Path("data/a")) == "data/a"
    assert relative(Path("./data/../data/a")) == "data/a"
    assert relative(tmp_path / "project/data/a") == "data/a"
    assert relative(tmp_path / "elsewhere/a") == f"{tmp_path}/elsewhere/a"
    assert relative(Path("../elsewhere/a")) == f"{tmp_path}/elsewhere/a"


def test_a_link_is_recorded_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.npy").write_bytes(b"abc")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path("inputs.npy").symlink_to(tmp_path / "big.npy")
    assert hashes([Path("inputs.npy")]) == {"inputs.npy": hashlib.sha256(b"abc").hexdigest()}


def test_hashes_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "bac":
        Path(name).write_text(name)
    assert list(hashes([Path("b"), Path("a"), Path("c")]).items()) == [
        (name, hashlib.sha256(name.encode()).hexdigest()) for name in "bac"
    ]


def test_versions_are_those_installed() -> None:
    import numpy

    python = ".".join(map(str, sys.version_info[:3]))
    assert versions("numpy") == {"image": "none", "python": python, "numpy": numpy.__version__}


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_comes_back_as_it_went(tmp_path: Path) -> None:
    content = {"variant": "é", "metrics": {"a_ms": 0.1, "flips": 3}, "none": None, "list": [1e-300]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "é" in text


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_json(tmp_path / name, {"x": 0.1, "y": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_holds_finite_numbers_only(old: Path, value: float) -> None:
    with pytest.raises(ValueError):
        write_json(old, {"metrics": {"a": [1, value]}})
    untouched(old)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; run `make all`"),
        (b"", "not readable JSON"),
        (b'{"a": 1', "not readable JSON"),
        (b"\xff\xfe", "not readable JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b"null", "holds no JSON object"),
    ],
)
def test_a_result_that_cannot_be_read_says_what_to_run(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(click.ClickException) as caught:
        read_json(path)
    assert str(path) in caught.value.message and words in caught.value.message
    assert "make all" in caught.value.message


def test_a_result_with_nan_is_not_readable(tmp_path: Path) -> None:
    """Python's reader accepts NaN, which is no JSON: a verdict must not be computed from it."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": float("nan")}))
    with pytest.raises(click.ClickException) as caught:
        read_json(path)
    assert str(path) in caught.value.message
