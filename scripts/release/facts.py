"""The results that a report stands on: which there have to be, fresh, and all of one place."""

from pathlib import Path
from typing import Any, NamedTuple

import click

from scripts.files import read_json, sha256
from scripts.variants import BY_NAME, NOT_MADE, not_here, of_family, undecided


class Place(NamedTuple):
    """Where results were computed."""

    mode: str  # local, docker
    device: str  # cpu, cuda
    release: str  # of the containers; "none" without

    def words(self) -> str:
        """For a sentence."""
        release = "" if self.release == "none" else f" {self.release}"
        return f"{self.mode}{release}, {self.device}"

    def settings(self) -> str:
        """What make is told."""
        release = "" if self.release == "none" else f" RELEASE={self.release}"
        return f"MODE={self.mode} GPU={'yes' if self.device == 'cuda' else 'no'}{release}"


def decide(
    folder: Path, family: str, mode: str, gpu: bool, skip: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """file name -> content of what steps decided on variants that are made only with a reason."""
    decisions: dict[str, dict[str, Any]] = {}
    for variant in of_family(family):
        if variant.decided and not undecided(variant, mode, gpu, skip, made(decisions)):
            name = f"{variant.name}.{variant.decided}.json"
            decisions[name] = read_json(folder / name)
    return decisions


def made(decisions: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The variants that were decided to be made."""
    return tuple(one["variant"] for one in decisions.values() if one.get("made"))


def why_not(
    decisions: dict[str, dict[str, Any]], family: str, mode: str, gpu: bool, skip: tuple[str, ...]
) -> dict[str, str | None]:
    """variant -> why it was not measured, as a phrase; None where it was."""
    decided = {one["variant"]: one["reason"] for one in decisions.values() if "made" in one}
    reasons = {}
    for variant in of_family(family):
        why = not_here(variant, mode, gpu, skip, made(decisions))
        reasons[variant.name] = decided[variant.name] if why == NOT_MADE else why
    return reasons


def collect(
    folder: Path, measured: list[str], served: bool, perf: bool = False
) -> dict[str, dict[str, Any]]:
    """file name -> content of every result that the report stands on.

    `served`: through Triton too; `perf`: and there by perf_analyzer, too.
    """
    reference = next(variant for variant in measured if BY_NAME[variant].source is None)
    names = ["samples.json", f"{reference}.check.json", f"{reference}.threshold.json"]
    names += latencies(measured)
    names += ["claims.json"] if any(BY_NAME[variant].file for variant in measured) else []
    for variant in measured:
        names += [f"{variant}.{step}.json" for step in ("score", "verdicts", "repeats")]
        names += [f"{variant}.precision.json"] if BY_NAME[variant].file else []
        names += [f"{variant}.range.json"] if BY_NAME[variant].ranged else []
        if any(one.repairs == variant for one in BY_NAME.values()):
            names.append(f"{variant}.culprits.json")
        names += [f"{variant}.layers.json"] if BY_NAME[variant].layered else []
        if served and BY_NAME[variant].file:
            names += [f"{variant}.served.json"] + ([f"{variant}.perf.json"] if perf else [])
    names += ["served_latency.json"] if any(name.endswith(".served.json") for name in names) else []
    return {name: read_json(folder / name) for name in names}


def check_fresh(found: dict[str, dict[str, Any]], case: str) -> None:
    """Refuse results computed from a file that has changed since, or from two states of one."""
    seen: dict[str, tuple[str, str]] = {}
    for name, result in found.items():
        for path, recorded in result["inputs"].items():
            if path not in seen:
                now = sha256(Path(path)) if Path(path).is_file() else recorded
                seen[path] = (now, name)
            if seen[path][0] != recorded:
                raise click.ClickException(
                    f"results/{case}/{name} was computed from another {path} than "
                    f"{'stands there now' if Path(path).is_file() else seen[path][1] + ' was'}. "
                    f"Run: rm results/{case}/{name} && make all CASE={case}"
                )


def check_same_place(found: dict[str, dict[str, Any]], case: str, place: Place) -> dict[str, Any]:
    """Refuse results of another mode, device, release or GPU, of two builds of an image, or of two
    versions of a package in one image.

    Else what they share: device, threads, GPU, versions, images.
    """
    again = f"Run: make clean CASE={case} && make all CASE={case} {place.settings()}"
    versions: dict[tuple[str, str], str] = {}
    gpus: dict[str, str] = {}
    for name, result in found.items():
        told = result.get("versions", {})
        image, release, _ = (*told.get("image", "none").split(" "), "none", "none")[:3]
        where = Place(
            result.get("mode", "local" if image == "none" else "docker"),
            result.get("device", place.device),
            release,
        )
        if where != place:
            raise click.ClickException(
                f"results/{case} mixes modes, devices or releases (now asked for: {place.words()}; "
                f"{name}: {where.words()}). {again}"
            )
        if result.get("gpu"):
            gpus.setdefault(result["gpu"], name)
        for package, version in told.items():
            if versions.setdefault((image, package), version) != version:
                raise click.ClickException(
                    f"results/{case} mixes {package} {versions[image, package]} and {version} "
                    f"(in {name}). {again}"
                )
    if len(gpus) > 1:
        raise click.ClickException(f"results/{case} mixes GPUs ({'; '.join(gpus)}). {again}")
    return {
        "device": place.device,
        "gpu_name": next(iter(gpus), None),
        "threads": found["latency.json"]["threads"],
        "providers": {r["variant"]: r["provider"] for r in found.values() if "provider" in r},
        "versions": {
            image: {package: v for (one, package), v in sorted(versions.items()) if one == image}
            for image in dict.fromkeys(image for image, _ in versions)
        },
    }


def latencies(measured: list[str]) -> list[str]:
    """The files with the times in process: one for each environment that variants run in."""
    environments = dict.fromkeys(BY_NAME[variant].environment for variant in measured)
    _, *others = environments  # the reference's comes first
    return ["latency.json", *(f"latency_{name}.json" for name in others)]
