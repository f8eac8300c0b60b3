"""The fixtures that tests share: a small complete case in a fresh folder, before and after each step."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy_case import Toy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The case in a fresh current folder; what its model imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    before = set(sys.modules)
    yield Toy()
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(tmp_path) in Path(file).absolute().parents:
            del sys.modules[name]


@pytest.fixture
def read_toy(toy: Toy) -> Toy:
    """The case after a good read_samples."""
    result = toy.read()
    assert result.exit_code == 0, result.output
    return toy


@pytest.fixture
def checked_toy(read_toy: Toy) -> Toy:
    """The case after a good read_samples and a good check_model."""
    result = read_toy.check()
    assert result.exit_code == 0, result.output
    return read_toy


@pytest.fixture
def environment() -> dict[str, str]:
    """For a step run as a process of its own, from any folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
