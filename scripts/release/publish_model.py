"""Publish a variant as the production model, as the next version number.

Three Triton models make a version: <case> answers with the raw output; <case>_decision turns that
into logit, verdict and threshold; <case>_verdict is the ensemble of both, for clients. The threshold
stands in the configuration of <case>_decision, and each configuration names the one version that it
serves, so neither changes without the other. A version that is there is never written to.

Reads   case.toml, report.json, the candidate's folder in model_repository/
Writes  model_repository/<case>*/: <N>/, <N>.pbtxt, <N>.json (what version N is), config.pbtxt
Runs    on the CPU
Usage   python3 -m scripts.release.publish_model data/digits/case.toml --report results/digits/report.json \
            --repository model_repository --out model_repository/digits/config.pbtxt
Prints  model_repository/digits/1: onnx_fp32
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import Case, read_case
from scripts.files import read_json, relative, sha256, write_json, writing
from scripts.variants import BY_NAME

HERE = Path(__file__).parent
DECISION = {"model.py": HERE / "decision.py", "heads.py": HERE.parent / "verdicts" / "heads.py"}
RAW_OUTPUT = re.compile(r'^output \[ \{ name: "(\w+)" data_type: (\w+) dims: (\[[^\]]*\])', re.M)
INPUT = re.compile(r'^input \[ \{ name: "(\w+)" data_type: (\w+) dims: (\[[^\]]*\])', re.M)


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--report", required=True, type=click.Path(path_type=Path))
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(case_toml: Path, report: Path, repository: Path, out: Path) -> None:
    case, facts = read_case(case_toml), read_json(report)
    chosen = facts["promotion"] or facts["recommendation"]
    if chosen["variant"] is None:
        raise click.ClickException(
            f"Nothing was published: {chosen['reasons'][0]}. The reasons stand in "
            f"{report.with_suffix('.md')}; what was in production stays. "
            f"`make promote VARIANT=...` overrides them."
        )
    what = {
        "variant": chosen["variant"],
        "threshold": chosen["threshold"],
        "report": {relative(report): sha256(report)},
    }
    number = publish(case, repository, what)
    switch(repository, case.name, number)
    if out != repository / case.name / "config.pbtxt":
        raise ValueError(f"{out} is not the configuration of {case.name} in {repository}")
    click.echo(f"{out.parent}/{number}: {chosen['variant']}")


def names(case: str) -> tuple[str, str, str]:
    """The models of a version: raw output, decision, ensemble."""
    return case, f"{case}_decision", f"{case}_verdict"


def publish(case: Case, repository: Path, what: dict[str, Any]) -> int:
    """Write a new version of the three models, each renamed into place whole; its number.

    The newest version stays the newest when it is already that variant with that threshold and
    the same files. A number without its note was never served: an interrupted run left it.
    """
    model, candidate = repository / case.name, repository / f"{case.name}_{what['variant']}"
    file = BY_NAME[what["variant"]].file
    assert file is not None
    files = {path.name: sha256(path) for path in sorted((candidate / "1").glob(file + "*"))}
    if file not in files or not (candidate / "config.pbtxt").is_file():
        raise click.ClickException(
            f"The candidate {candidate} lacks 1/{file} or config.pbtxt, so nothing was published. "
            "Run `make all` to build it."
        )
    config = (candidate / "config.pbtxt").read_text(encoding="utf-8")
    numbers = [int(path.name) for path in model.glob("[1-9]*") if path.name.isdigit()]
    newest = max(numbers, default=0)
    texts = get_configs(case, config, newest, what)
    if newest and _version(repository, case.name, newest) == (what["threshold"], files, texts):
        return newest
    number = newest + 1 if newest == 0 or (model / f"{newest}.json").is_file() else newest
    contents: tuple[dict[str, Path], ...] = (
        {name: candidate / "1" / name for name in files},
        DECISION,
        {},
    )
    for name, content, text in zip(
        names(case.name), contents, get_configs(case, config, number, what), strict=True
    ):
        folder = repository / name
        _place(folder, number, content)
        with writing(folder / f"{number}.pbtxt") as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(model / f"{number}.json", {"version": number, **what, "files": files})
    return number


def _place(model: Path, number: int, files: dict[str, Path]) -> None:
    """The version folder with copies of `files`; what an interrupted run left is replaced."""
    temporary = model / f".{number}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        for name, source in files.items():
            shutil.copy2(source, temporary / name)
        shutil.rmtree(model / str(number), ignore_errors=True)
        temporary.rename(model / str(number))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def get_configs(case: Case, config: str, number: int, what: dict[str, Any]) -> tuple[str, str, str]:
    """config.pbtxt of the three models, from the candidate's `config`."""
    raw, decision, ensemble = names(case.name)
    policy = f"version_policy {{ specific {{ versions: [ {number} ] }} }}\n"
    first = config.replace(f'"{case.name}_{what["variant"]}"', f'"{raw}"', 1) + policy
    output = RAW_OUTPUT.search(config)
    inputs = INPUT.findall(config)
    assert output is not None and inputs
    size = f"max_batch_size: {case.max_batch}\n"
    ends = "".join(
        f'output [ {{ name: "{name}" data_type: {kind} dims: [ 1 ] }} ]\n'
        for name, kind in (
            ("logit", "TYPE_FP32"),
            ("verdict", "TYPE_BOOL"),
            ("threshold", "TYPE_FP64"),
        )
    )
    told = {"threshold": repr(what["threshold"]), "head": case.head,
            "positive_class": case.positive_class, "variant": what["variant"]}  # fmt: skip
    second = (
        f'name: "{decision}"\nbackend: "python"\n{size}'
        f'input [ {{ name: "raw" data_type: {output[2]} dims: {output[3]} }} ]\n{ends}'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in told.items()
        )
        + policy
    )
    third = (
        f'name: "{ensemble}"\nplatform: "ensemble"\n{size}'
        + "".join(f'input [ {{ name: "{name}" data_type: {kind} dims: {dims} }} ]\n' for name, kind, dims in inputs)
        + ends
        + "ensemble_scheduling {\n"
        + _step(raw, number, {name: name for name, _, _ in inputs}, {output[1]: "raw"})
        + _step(decision, number, {"raw": "raw"}, {key: key for key in ("logit", "verdict", "threshold")})
        + "}\n" + policy
    )  # fmt: skip
    return first, second, third


def _step(model: str, number: int, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    maps = "".join(
        f'    {kind} {{ key: "{key}" value: "{value}" }}\n'
        for kind, pairs in (("input_map", inputs), ("output_map", outputs))
        for key, value in pairs.items()
    )
    return f'  step {{\n    model_name: "{model}" model_version: {number}\n{maps}  }}\n'


def _version(repository: Path, case: str, number: int) -> Any:
    """What version `number` is: by its own files, and by those beside it; None if it is not whole."""
    folders = [repository / name for name in names(case)]
    if not all(
        (one / f"{number}.pbtxt").is_file() and (one / str(number)).is_dir() for one in folders
    ):
        return None
    beside = folders[0] / f"{number}.json"
    if not beside.is_file():
        return None
    inside = sorted(path for path in (folders[0] / str(number)).iterdir() if path.is_file())
    files = {path.name: sha256(path) for path in inside}  # a server may leave a __pycache__
    for name, source in DECISION.items():
        copy = folders[1] / str(number) / name
        if not copy.is_file() or sha256(copy) != sha256(source):
            return None
    texts = tuple((one / f"{number}.pbtxt").read_text(encoding="utf-8") for one in folders)
    return read_json(beside)["threshold"], files, texts


def switch(repository: Path, case: str, number: int) -> None:
    """Make `number` the version that the three configurations serve, the ensemble last."""
    for name in names(case):
        folder = repository / name
        with writing(folder / "config.pbtxt") as temporary:
            shutil.copyfile(folder / f"{number}.pbtxt", temporary)


if __name__ == "__main__":
    main()
