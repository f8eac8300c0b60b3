"""The command line that steps share, what every result records, and a bar for the impatient.

Make tells every step the same: case.toml, --samples, --mode, --device, --out. A step names those that it
needs, beside what else it takes; the others it accepts and leaves alone.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scripts.files import gpu_name, hashes, versions
from scripts.variants import BY_NAME

A_PATH = click.Path(path_type=Path)
A_FILE = click.Path(path_type=Path, exists=True)
# The options by name: type, help. All that a step names must be given.
OPTIONS: dict[str, tuple[Any, str]] = {
    "samples": (A_PATH, "samples.json: what the case's data is."),
    "mode": (click.Choice(["local", "docker"]), "Where steps run."),
    "device": (click.Choice(["cpu", "cuda"]), "What the variant runs on."),
    "out": (A_PATH, "The file to write."),
    "variant": (click.Choice(list(BY_NAME)), "Which form of the model."),
    "model": (A_FILE, "Its file."),
    "source": (A_FILE, "The file that it was converted from."),
    "logits": (A_PATH, "<variant>.logits.npy"),
    "verdicts": (A_PATH, "<variant>.verdicts.json"),
    "reference": (A_PATH, "The logits of the reference."),
    "threshold": (A_PATH, "<reference>.threshold.json"),
    "labels": (A_PATH, "labels.npy"),
    "repository": (A_PATH, "The model repository of Triton."),
    "results": (A_PATH, "The folder of the case's results."),
    "log": (A_PATH, "Where a program that is run writes what it says."),
    "gpu": (click.Choice(["yes", "no"]), "Whether a GPU is used."),
    "served": (click.Choice(["yes", "no"]), "Whether Triton was asked."),
}
SHARED = ("samples", "mode", "device", "out")  # Make tells every step these, and case.toml
Main = Callable[..., None]


def step(manual: str | None, *needed: str) -> Callable[[Main], click.Command]:
    """Make a command of main(), whose help is the first line of `manual`, the module's docstring.

    `needed`: "case" for the argument case.toml, and names of OPTIONS. main() gets what it needs, as
    `case_toml` and under the options' names; options of its own stand below this decorator.
    """

    def decorate(main: Main) -> click.Command:
        asked = [name for name in needed if name != "case"]
        idle = [name for name in SHARED if name not in needed]

        @functools.wraps(main)
        def command(**given: Any) -> None:
            for name in idle if "case" in needed else [*idle, "case_toml"]:
                given.pop(name, None)
            main(**given)

        wrapped: Any = command
        for name in reversed([*asked, *idle]):
            wrapped = _option(name, name in needed)(wrapped)
        whole = click.argument("case_toml", type=A_PATH, required="case" in needed)(wrapped)
        return click.command(help=manual.splitlines()[0] if manual else None)(whole)

    return decorate


def _option(name: str, needed: bool) -> Callable[[Any], Any]:
    kind, text = OPTIONS[name]
    return click.option(
        f"--{name}", type=kind if needed else None, help=text, required=needed, hidden=not needed
    )


def record(
    step: str, inputs: list[Path], packages: tuple[str, ...], variant: str | None = None,
    mode: str | None = None, device: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What every result says of itself: who wrote it, from which files (hashed), with which versions.

    `mode` and `device` where what was found depends on them.
    """
    who = {"variant": variant} if variant else {}
    where = {"mode": mode, "device": device, "gpu": gpu_name(device)} if mode and device else {}
    return {
        **who,
        "step": step,
        **where,
        "inputs": hashes(inputs),
        "versions": versions(*dict.fromkeys(packages)),
    }


def progress(total: int | None, name: str, unit: str = "samples") -> Any:
    """A bar on a terminal, nothing otherwise: the step prints its one line at the end."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit=unit, leave=False, disable=not sys.stderr.isatty())
