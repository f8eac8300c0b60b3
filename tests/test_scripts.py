"""What holds for every step: its help needs nothing but click, its docstring is its manual."""

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

FOLDER = Path(__file__).parents[1] / "scripts"
FILES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): path
    for path in sorted(FOLDER.rglob("[a-z]*.py"))
}
STEPS = [name for name, path in FILES.items() if '__name__ == "__main__"' in path.read_text()]
# The steps that work on arrays need NumPy for their types; nothing heavier.
LIGHT = ("click", "numpy")
# Called by make on the host: the standard library alone, without click.
ON_THE_HOST = ("variants", "imports", "doctor.check_machine", "release.decide_release")


def test_there_are_steps() -> None:
    assert len(STEPS) > 30


@pytest.mark.parametrize("name", STEPS)
def test_help_works_without_the_heavy_packages(name: str, tmp_path: Path) -> None:
    for package in LIGHT:
        module = importlib.import_module(package)
        assert module.__file__
        (tmp_path / package).symlink_to(Path(module.__file__).parent)
    libraries = Path(importlib.import_module("numpy").__file__ or "").parents[1] / "numpy.libs"
    if libraries.exists():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    program = (
        f"import sys; sys.path[:0] = [{str(FOLDER.parent)!r}, {str(tmp_path)!r}];"
        f"sys.argv = [{name!r}, '--help'];"
        f"import runpy; runpy.run_module('scripts.{name}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


@pytest.mark.parametrize("name", STEPS)
def test_the_docstring_is_the_manual(name: str) -> None:
    text = importlib.import_module(f"scripts.{name}").__doc__ or ""
    for heading in ("Runs ", "Usage ", f"python3 -m scripts.{name}", "Prints"):
        assert heading in text, heading


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ON_THE_HOST])
def test_the_usage_line_names_every_option_that_must_be_given(name: str) -> None:
    module = importlib.import_module(f"scripts.{name}")
    for parameter in module.main.params:
        if isinstance(parameter, click.Option) and parameter.required:
            assert parameter.opts[0] in module.__doc__, parameter.opts[0]
