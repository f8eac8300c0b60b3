"""For make: which files of this package a program is made of, read from the files' imports.

Runs   on the host, with the standard library alone: Make calls it before anything is installed.
Usage  python3 -m scripts.imports
Prints a line for each module, itself first: score/score_variant=scripts/score/score_variant.py,scripts/step.py,...
"""

import argparse
import re
from pathlib import Path

PACKAGE = "scripts"
IMPORT = re.compile(rf"^ *from ({PACKAGE}[\w.]*) import (\([^)]*\)|[^\n#]+)", re.MULTILINE)


def direct(text: str, known: set[str]) -> set[str]:
    """The modules of `known`, as "room/module", that a module's text imports."""
    found: set[str] = set()
    for package, names in IMPORT.findall(text):
        place = package.replace(".", "/").removeprefix(PACKAGE).lstrip("/")
        inside = {f"{place}/{name.split()[0]}".lstrip("/") for name in _names(names)}
        found |= {place} & known or inside & known
    return found


def _names(listed: str) -> list[str]:
    return [name for name in listed.strip("()").replace("\n", " ").split(",") if name.strip()]


def closure(module: str, edges: dict[str, set[str]]) -> list[str]:
    """The module and all that it imports, directly or through others; circles do no harm."""
    found, left = [module], [module]
    while left:
        new = sorted(edges[left.pop()] - set(found))
        found += new
        left += new
    return found


def main() -> None:
    """Print the files of each module."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    folder = Path(__file__).parent
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.py")
    }
    known = set(files)
    edges = {name: direct(path.read_text(encoding="utf-8"), known) for name, path in files.items()}
    for name in sorted(files):
        print(f"{name}=" + ",".join(f"{PACKAGE}/{one}.py" for one in closure(name, edges)))


if __name__ == "__main__":
    main()
