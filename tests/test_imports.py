"""What make takes for a program's sources, held against Python's own reading of the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.imports import closure, direct

ROOT = Path(__file__).parents[1]


def parsed(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports, by its syntax tree."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scripts":
            place = "/".join(str(node.module).split(".")[1:])
            inside = {f"{place}/{alias.name}".lstrip("/") for alias in node.names}
            found |= {place} & known or inside & known
    return found


def test_every_module_is_read_as_python_reads_it() -> None:
    command = [sys.executable, "-S", "-m", "scripts.imports"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    told = dict(line.split("=") for line in lines.splitlines())
    known = set(told)
    assert len(known) > 120 and "score/score_variant" in known
    edges = {name: parsed(ROOT / "scripts" / f"{name}.py", known) for name in known}
    for name, files in told.items():
        wanted = {f"scripts/{one}.py" for one in closure(name, edges)}
        extra = {"scripts/bench/decision.py", "scripts/bench/theirs.py", "scripts/bench/given.py"}
        missing, more = wanted - set(files.split(",")), set(files.split(",")) - wanted
        assert not missing, name
        assert not more or name.startswith("bench/"), (name, more - extra)  # in texts of programs


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from scripts.a.b import C, d\n", {"a/b"}),
        ("    from scripts.a import b\n", {"a/b"}),
        ("from scripts.a import b as other, c  # why\n", {"a/b", "a/c"}),
        ("from scripts.a import (\n    b,\n    c as d,\n)\n", {"a/b", "a/c"}),
        ("from scripts import e\n", {"e"}),
        ("from scripts.e import f\nimport scripts\n", {"e"}),
        ("from scripting.a import b\n# from scripts.a import b\n", set()),
    ],
)
def test_every_way_to_write_an_import(text: str, found: set[str]) -> None:
    assert direct(text, {"a/b", "a/c", "e"}) == found


def test_circles_end() -> None:
    assert closure("a", {"a": {"b"}, "b": {"a", "c"}, "c": set()}) == ["a", "b", "c"]
