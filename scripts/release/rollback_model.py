"""Put the production model one version back. No version is removed or changed.

Reads   model_repository/<case>/
Writes  config.pbtxt of <case>, <case>_decision and <case>_verdict, from those of the earlier version
Runs    anywhere
Usage   python3 -m scripts.release.rollback_model digits --repository model_repository  (or: make rollback)
Prints  model_repository/digits: version 1 (onnx_fp32) in place of 2
"""

from pathlib import Path

import click

from scripts.files import read_json
from scripts.release.publish_model import switch
from scripts.triton.production import current, versions


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


if __name__ == "__main__":
    main()
