"""Publish the recommended variant as the production model, as the next version number.

Reads   report.json, the candidate's folder in model_repository/
Writes  model_repository/<case>/: <N>/model.*, <N>.json (what version N is), config.pbtxt
Runs    on the CPU
Usage   python3 -m scripts.publish_model results/digits/report.json \
            --repository model_repository --out model_repository/digits/config.pbtxt
Prints  model_repository/digits/1: onnx_fp32
"""

import os
import shutil
from pathlib import Path
from typing import Any

import click

from scripts.files import read_json, relative, sha256, write_json, writing
from scripts.variants import BY_NAME


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("report_json", type=click.Path(path_type=Path))
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(report_json: Path, repository: Path, out: Path) -> None:
    report = read_json(report_json)
    variant, case = report["recommendation"]["variant"], report["case"]
    if variant is None:
        raise click.ClickException(
            f"Nothing was published: {report['recommendation']['reasons'][0]}. The reasons stand in "
            f"{report_json.with_suffix('.md')}; what was in production stays."
        )
    candidate = repository / f"{case}_{variant}"
    number = publish(out.parent, candidate, {
        "variant": variant,
        "threshold": report["recommendation"]["threshold"],
        "report": {relative(report_json): sha256(report_json)},
    })  # fmt: skip
    config = (candidate / "config.pbtxt").read_text(encoding="utf-8")
    text = config.replace(f'"{candidate.name}"', f'"{case}"', 1)
    with writing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"{out.parent}/{number}: {variant}")


def publish(model: Path, candidate: Path, what: dict[str, Any]) -> int:
    """Copy the candidate's files to a new version of `model`, renamed into place whole.

    The newest version stays the newest when it is already that variant with that threshold and
    the same files. Returns its number. An existing version is never written to.
    """
    file = BY_NAME[what["variant"]].file
    assert file is not None
    files = {path.name: sha256(path) for path in sorted((candidate / "1").glob(file + "*"))}
    if file not in files or not (candidate / "config.pbtxt").is_file():
        raise click.ClickException(
            f"The candidate {candidate} lacks 1/{file} or config.pbtxt, so nothing was published. "
            "Run `make all` to build it."
        )
    numbers = [int(path.name) for path in model.glob("[1-9]*") if path.name.isdigit()]
    newest = max(numbers, default=0)
    wanted = {"variant": what["variant"], "threshold": what["threshold"], "files": files}
    if newest and _version(model, newest) == wanted:
        return newest
    temporary = model / f".{newest + 1}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        for name in files:
            shutil.copy2(candidate / "1" / name, temporary)
        write_json(model / f"{newest + 1}.json", {"version": newest + 1, **what, "files": files})
        temporary.rename(model / str(newest + 1))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return newest + 1


def _version(model: Path, number: int) -> dict[str, Any]:
    """What version `number` is: by its own files, and by the file beside it."""
    beside = model / f"{number}.json"
    said = read_json(beside) if beside.is_file() else {}
    files = {path.name: sha256(path) for path in sorted((model / str(number)).iterdir())}
    return {"variant": said.get("variant"), "threshold": said.get("threshold"), "files": files}


if __name__ == "__main__":
    main()
