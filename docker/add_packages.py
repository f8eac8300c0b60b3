"""Add our pinned packages to an NVIDIA image without moving anything that it brings.

A pin whose package is there already, in whatever version, is left as it is; the others are installed
alone (every package that they need is pinned too). Afterwards all that was there must still be there
in the same version. NVIDIA's own list of constraints does not apply to what its image lacks.

Runs   while an image is built, as root, with the standard library
Usage  python3 add_packages.py --brought torch --brought onnx requirements.txt requirements-gpu.txt
"""

import argparse
import os
import re
import subprocess
import sys
from importlib.metadata import distributions

PIN = re.compile(
    r'([A-Za-z0-9._-]+)(\[[^\]]*\])?==([^\s;]+)\s*(?:;\s*python_version\s*(<|>=)\s*"3\.(\d+)")?'
)
SAME = {
    "onnxruntime": "onnxruntime-gpu",
    "onnxruntime-gpu": "onnxruntime",
}  # one module, two packages


def canonical(name: str) -> str:
    """The name of a package as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Every package that this Python finds: name -> version."""
    return {
        canonical(one.metadata["Name"]): one.version
        for one in distributions()
        if one.metadata["Name"]
    }


def pins(path: str) -> dict[str, str]:
    """The pins of a requirements file that apply to this Python: name -> requirement."""
    found = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            text = line.partition("#")[0].strip()
            if not text:
                continue
            match = PIN.fullmatch(text)
            if match is None:
                sys.exit(f"{path}: {text!r} is no exact pin.")
            name, _, version, relation, minor = match.groups()
            older = minor is not None and sys.version_info < (3, int(minor))
            if relation is None or (relation == "<") == older:
                found[canonical(name)] = f"{name}=={version}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirements", nargs="+")
    parser.add_argument("--brought", action="append", default=[], help="must be in the image")
    parser.add_argument("--without", action="append", default=[], help="not needed in this image")
    parser.add_argument(
        "--replace", action="append", default=[], help="ours instead of the image's"
    )
    options = parser.parse_args()
    before = installed()
    for name in options.brought:
        if name not in before:
            sys.exit(
                f"The base image brings no {name}; choose NVIDIA's image of that name as BASE."
            )
    wanted = {name: pin for path in options.requirements for name, pin in pins(path).items()}
    add = []
    for name, pin in wanted.items():
        there = name in before or SAME.get(name) in before
        if name in options.without or (there and name not in options.replace):
            continue
        add.append(pin)
    print(f"Adding {' '.join(add)}", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-deps"]
    environment = os.environ | {"PIP_CONSTRAINT": "", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    if add:
        subprocess.run([*pip, *add], check=True, env=environment)
    after = installed()
    moved = {
        name: f"{version} -> {after.get(name, 'gone')}"
        for name, version in before.items()
        if after.get(name) != version and name not in options.replace
    }
    if moved:
        sys.exit(f"Adding packages moved what the image brings: {moved}.")


if __name__ == "__main__":
    main()
