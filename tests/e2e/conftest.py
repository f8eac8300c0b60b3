"""Copies of the project, before and after `make all`."""

from pathlib import Path

import pytest

from tests.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of the project without results."""
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project in which `make all` has run. Tests leave it built."""
    project = Project(tmp_path_factory.mktemp("digits") / "project")
    done = project.make("all")
    assert done.returncode == 0, done.stdout + done.stderr
    return project
