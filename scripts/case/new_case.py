"""Write a commented case.toml to fill in, for a model of your own.

Writes  data/<case>/case.toml and data/<case>/model.py, unless they are there already
Runs    on the CPU
Usage   python3 -m scripts.case.new_case data/mask     (or: make new CASE=mask)
Prints  what to do next
"""

import re
from pathlib import Path

import click

from scripts.files import writing

MODEL = '''\
"""The network. case.toml names build(); the weights are loaded into what it returns."""

from torch import nn


def build() -> nn.Module:
    raise NotImplementedError("write the model's definition here, or set factory in case.toml")
'''


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", folder.name):
        raise click.ClickException(
            f"{folder.name!r} cannot name a case: use letters, digits, _ and -, a letter first."
        )
    toml, model = folder / "case.toml", folder / "model.py"
    if toml.exists():
        raise click.ClickException(
            f"{toml} is there already and stays as it is; name another case, or edit it."
        )
    from scripts.case.template import get_template

    for path, text in ((model, MODEL), (toml, get_template())):
        if not path.exists():
            with writing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    click.echo(
        f"{toml} is written. Put the weights and the data beside it, fill it in, then run: "
        f"make all CASE={folder.name}"
    )


if __name__ == "__main__":
    main()
