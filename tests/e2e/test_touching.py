"""What depends on which script: held against the imports, and by touching."""

import ast
import os
import re
from pathlib import Path

from tests.project import STEP, Project

# In make's own list of rules: a target, what it needs, and the step of its recipe.
RULE = re.compile(
    r"^([^#$\t\n:][^:\n]*):(.*)\n(?:#.*\n)*\t.*\$\(call (?:step|program),([\w/]+)", re.MULTILINE
)
SET_UP = {"triton/home"}  # lays out .venv


def as_paths(steps: set[str]) -> set[str]:
    return {step.replace(".", "/") for step in steps}


def imports(folder: Path) -> dict[str, set[str]]:
    """module -> the modules it imports, itself among them, directly or through others."""
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.py")
    }
    direct: dict[str, set[str]] = {}
    for name, path in paths.items():
        direct[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("scripts."):
                place = str(node.module).replace(".", "/")
                for one in (place, *(f"{place}/{alias.name}" for alias in node.names)):
                    direct[name] |= {one.removeprefix("scripts/")} & set(paths)
    whole = {}
    for name in direct:
        found, left = {name}, [name]
        while left:
            new = direct[left.pop()] - found
            found |= new
            left += new
        whole[name] = found
    return whole


def test_every_file_of_a_step_is_needed_by_what_the_step_makes(digits: Project) -> None:
    uses = imports(digits.folder / "scripts")
    rules = RULE.findall(digits.make("-npq", "all").stdout)
    made = {step for _, _, step in rules}
    run = as_paths(digits.steps("-B")) - SET_UP
    assert len(run) >= 20 and run <= made
    for target, needed, step in rules:
        if step in run and "$(" not in target:  # else it is make's own text of a template
            missing = {f"scripts/{name}.py" for name in uses[step]} - set(needed.split())
            assert not missing, (target, step)


def test_touching_a_script_reruns_every_step_that_uses_it(digits: Project) -> None:
    """One of each room, and those that belong to none."""
    folder = digits.folder / "scripts"
    uses = imports(folder)
    run = as_paths(digits.steps("-B")) - SET_UP
    used = {name: {step for step in run if name in uses[step]} for name in uses}
    rooms: dict[str, str] = {}
    for name in sorted(used, key=lambda name: (-len(used[name]), name)):
        room = name.rpartition("/")[0] or name
        rooms.setdefault(f"{room} {bool(used[name])}", name)
    assert len(rooms) > 20
    for name in rooms.values():
        path = folder / f"{name}.py"
        was = path.stat()
        path.touch()
        again = as_paths(digits.steps())
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert used[name] <= again, name
        if name.startswith(("bench/", "doctor/", "case/new_case")):
            assert not again, name
    assert not digits.steps()


def test_touching_a_plot_redraws_without_measuring_again(digits: Project) -> None:
    path = digits.folder / "scripts/report/plot_threshold.py"
    was = path.stat()
    path.touch()
    done = digits.make("all", "V=1")  # a dry run does not follow the second file of a step
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert done.returncode == 0, done.stderr
    assert set(STEP.findall(done.stdout)) == {"report.draw_pictures", "report.write_report", "report.write_html",
                     "release.publish_model"}  # fmt: skip
