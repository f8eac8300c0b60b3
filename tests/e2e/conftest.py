"""Copies of the project, before and after `make all`."""

from pathlib import Path

import pytest

from tests.project import Project


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the built copy is run by one worker, so that it is built once."""
    for item in items:
        if "digits" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("digits"))


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
