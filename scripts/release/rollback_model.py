"""Put the production model one version back. No version is removed or changed.

Reads   model_repository/<case>/
Writes  config.pbtxt of <case>, <case>_decision and <case>_verdict, from those of the earlier version
Runs    anywhere
Usage   python3 -m scripts.release.rollback_model digits --repository model_repository  (or: make rollback)
Prints  model_repository/digits: version 1 (onnx_fp32) in place of 2
"""

import re
from pathlib import Path

import click

from scripts.files import read_json
from scripts.release.publish_model import names, switch

SERVED = re.compile(r"^version_policy \{ specific \{ versions: \[ (\d+) \] \} \}$", re.M)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case")
@click.option("--repository", required=True, type=click.Path(path_type=Path))
def main(case: str, repository: Path) -> None:
    model = repository / case
    now = current(model)
    kept = [n for n in versions(repository, case) if n < now]
    if not kept:
        raise click.ClickException(
            f"{model} serves version {now}, and there is none before it that could be served."
        )
    switch(repository, case, max(kept))
    variant = read_json(model / f"{max(kept)}.json")["variant"]
    click.echo(f"{model}: version {max(kept)} ({variant}) in place of {now}")


def current(model: Path) -> int:
    """The version that the production model's configuration names."""
    config = model / "config.pbtxt"
    found = SERVED.search(config.read_text(encoding="utf-8")) if config.is_file() else None
    if found is None:
        raise click.ClickException(
            f"There is no production model in {model} yet. Run `make all` to publish one."
        )
    return int(found[1])


def versions(repository: Path, case: str) -> list[int]:
    """The versions of which all three models are there, in order."""
    found = [int(path.stem) for path in (repository / case).glob("[1-9]*.json")]
    folders = [repository / name for name in names(case)]
    return sorted(
        n for n in found
        if all((one / str(n)).is_dir() and (one / f"{n}.pbtxt").is_file() for one in folders)
    )  # fmt: skip


if __name__ == "__main__":
    main()
