"""What a production model is: three models in Triton, and the one version that they serve.

<case> answers with the raw output; <case>_decision turns that into logit, verdict and threshold;
<case>_verdict is the ensemble of both, for clients. Each names its version in its config.pbtxt; the
files of version N are <N>/ and <N>.pbtxt in each of the three folders, and <N>.json in the first.
"""

from pathlib import Path

import click

from scripts.triton.model_config import read_config


def names(case: str) -> tuple[str, str, str]:
    """The models of a version: raw output, decision, ensemble."""
    return case, f"{case}_decision", f"{case}_verdict"


def current(model: Path) -> int:
    """The version that the production model's configuration names."""
    config = model / "config.pbtxt"
    if not config.is_file():
        raise click.ClickException(
            f"There is no production model in {model} yet. Run `make all` to publish one."
        )
    return named(config)


def named(config: Path) -> int:
    """The one version that a configuration names; click.ClickException where it is not one."""
    found = list(read_config(config).version_policy.specific.versions)
    if len(found) != 1:
        what = f"the versions {', '.join(map(str, found))}" if found else "no version"
        raise click.ClickException(
            f"{config} names {what} in version_policy, and a production model serves exactly one. "
            "Remove it and run `make all`, which publishes it again."
        )
    return int(found[0])


def versions(repository: Path, case: str) -> list[int]:
    """The versions of which all three models are there, in order."""
    notes = (repository / case).glob("[1-9]*.json")
    found = [int(path.stem) for path in notes if path.stem.isdigit()]
    folders = [repository / name for name in names(case)]
    return sorted(
        n for n in found
        if all((one / str(n)).is_dir() and (one / f"{n}.pbtxt").is_file() for one in folders)
    )  # fmt: skip
