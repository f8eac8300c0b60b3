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
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.case.read_case import Case, read_case
from scripts.files import read_json, relative, sha256, write_json, writing
from scripts.step import A_PATH, step
from scripts.triton.model_config import read_config, write_text
from scripts.triton.production import named, names
from scripts.triton.write_config import get_comments
from scripts.variants import BY_NAME

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

HERE = Path(__file__).parent
DECISION = {"model.py": HERE / "decision.py", "heads.py": HERE.parent / "verdicts" / "heads.py"}
ENDS = {"logit": "TYPE_FP32", "verdict": "TYPE_BOOL", "threshold": "TYPE_FP64"}
ONE_VERSION = (
    "The version that is served, and no other; `make rollback` goes back to an earlier one."
)
APPLIED = "What model.py applies; the threshold is exact to its last digit."


@step(__doc__, "case", "repository", "out")
@click.option("--report", required=True, type=A_PATH)
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


def publish(case: Case, repository: Path, what: dict[str, Any]) -> int:
    """Write a new version of the three models, each renamed into place whole; its number.

    The newest version stays the newest when it is already that variant with that threshold and
    the same files. A number without its note was never served: an interrupted run left it.
    """
    model, candidate = repository / case.name, repository / f"{case.name}_{what['variant']}"
    config, files = read_candidate(candidate, what["variant"])
    numbers = [int(path.name) for path in model.glob("[1-9]*") if path.name.isdigit()]
    newest = max(numbers, default=0)
    same = (what["threshold"], files, get_configs(case, config, newest, what))
    if newest and _version(repository, case.name, newest) == same:
        return newest
    number = newest + 1 if newest == 0 or (model / f"{newest}.json").is_file() else newest
    copies: tuple[dict[str, Path], ...] = (
        {name: candidate / "1" / name for name in files},
        DECISION,
        {},
    )
    comments: tuple[dict[str, str], ...] = (
        get_comments(what["variant"], config),
        {"parameters": APPLIED},
        {},
    )
    configs = get_configs(case, config, number, what)
    for one, content, why in zip(configs, copies, comments, strict=True):
        _place(repository / one.name, number, content)
        path = repository / one.name / f"{number}.pbtxt"
        write_text(path, one, {**why, "version_policy": ONE_VERSION})
    write_json(model / f"{number}.json", {"version": number, **what, "files": files})
    return number


def read_candidate(candidate: Path, variant: str) -> tuple["ModelConfig", dict[str, str]]:
    """Its configuration, and its files with their SHA-256; click.ClickException if it is not whole."""
    file, path = BY_NAME[variant].file, candidate / "config.pbtxt"
    assert file is not None
    files = {one.name: sha256(one) for one in sorted((candidate / "1").glob(file + "*"))}
    if file not in files or not path.is_file():
        raise click.ClickException(
            f"The candidate {candidate} lacks 1/{file} or config.pbtxt, so nothing was published. "
            "Run `make all` to build it."
        )
    config = read_config(path)
    if not config.input or len(config.output) != 1:
        raise click.ClickException(
            f"{path} lists {_listed(config.input, 'input')} and {_listed(config.output, 'output')}, and "
            "a production model has inputs and one output, so nothing was published. Remove it and "
            "run `make all`."
        )
    return config, files


def _listed(tensors: Iterable[Any], kind: str) -> str:
    """In words: "no input", "the output logits", "the outputs logits, scores"."""
    found = [one.name for one in tensors]
    return f"the {kind}{'s' * (len(found) > 1)} {', '.join(found)}" if found else f"no {kind}"


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


def get_configs(
    case: Case, candidate: "ModelConfig", number: int, what: dict[str, Any]
) -> tuple["ModelConfig", ...]:
    """The configurations of the three models, from the candidate's."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    raw, decision, ensemble = names(case.name)
    first = ModelConfig()
    first.CopyFrom(candidate)
    first.name = raw
    second = ModelConfig(name=decision, backend="python", max_batch_size=case.max_batch)
    _decide(second, case, candidate, what)
    third = ModelConfig(name=ensemble, platform="ensemble", max_batch_size=case.max_batch)
    _chain(third, case, candidate, number)
    for config in (first, second, third):
        config.version_policy.specific.versions[:] = [number]
    return first, second, third


def _decide(
    config: "ModelConfig", case: Case, candidate: "ModelConfig", what: dict[str, Any]
) -> None:
    """Make `config` that of the model which applies the threshold to the candidate's output."""
    raw = candidate.output[0]
    config.input.add(name="raw", data_type=raw.data_type, dims=raw.dims)
    _add_ends(config)
    config.instance_group.add(kind="KIND_CPU", count=1)
    told = {"threshold": repr(what["threshold"]), "head": case.head,
            "positive_class": str(case.positive_class), "variant": what["variant"]}  # fmt: skip
    for key, value in told.items():
        config.parameters[key].string_value = value


def _chain(config: "ModelConfig", case: Case, candidate: "ModelConfig", number: int) -> None:
    """Make `config` that of the ensemble: the candidate, then the decision on its output."""
    raw, decision, _ = names(case.name)
    for one in candidate.input:
        config.input.add(name=one.name, data_type=one.data_type, dims=one.dims)
    _add_ends(config)
    config.ensemble_scheduling.step.add(
        model_name=raw, model_version=number,
        input_map={one.name: one.name for one in candidate.input},
        output_map={candidate.output[0].name: "raw"},
    )  # fmt: skip
    config.ensemble_scheduling.step.add(
        model_name=decision, model_version=number,
        input_map={"raw": "raw"}, output_map={name: name for name in ENDS},
    )  # fmt: skip


def _add_ends(config: "ModelConfig") -> None:
    """What clients are answered with: one number per sample each."""
    for name, kind in ENDS.items():
        config.output.add(name=name, data_type=kind, dims=[1])


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
    configs = tuple(read_config(one / f"{number}.pbtxt") for one in folders)
    return read_json(beside)["threshold"], files, configs


def switch(repository: Path, case: str, number: int) -> None:
    """Make `number` the version that the three configurations serve, the ensemble last."""
    folders = [repository / name for name in names(case)]
    for kept in (folder / f"{number}.pbtxt" for folder in folders):
        if named(kept) != number:
            raise click.ClickException(
                f"{kept} names version {named(kept)} in version_policy, and not {number}. Remove it and "
                "run `make all`; what was in production stays."
            )
    for folder in folders:
        with writing(folder / "config.pbtxt") as temporary:
            shutil.copyfile(folder / f"{number}.pbtxt", temporary)


if __name__ == "__main__":
    main()
