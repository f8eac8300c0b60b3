"""State what is claimed of new data: flip bounds, quality and margins, from samples that chose nothing.

Reads   case.toml, samples.json, labels.npy, the reference's logits and threshold, and of each variant
        its logits, verdicts, repeats and, with --served yes, what Triton answered; the logits of
        unlabelled traffic where the case brings some
Writes  claims.json
Runs    on the CPU
Usage   python3 -m scripts.verdicts.state_claims data/digits/case.toml --results results/digits \
            --samples results/digits/samples.json --served yes --out results/digits/claims.json \
            onnx_fp32 onnx_fp16
Prints  claims: cross-fitting, onnx_fp32 0 of 899 flip (at most 0.41% of new ones); onnx_fp16 ...
"""

from pathlib import Path
from typing import Any

import click

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Samples, load
from scripts.files import read_json, write_json
from scripts.step import record, step
from scripts.variants import BY_NAME, REFERENCES
from scripts.verdicts.claims import Facts, Given, claims
from scripts.verdicts.compare_verdicts import deployed


@step(__doc__, "case", "results", "samples", "served", "out")
@click.argument("variants", nargs=-1, required=True, type=click.Choice(list(BY_NAME)))
def main(
    case_toml: Path, variants: tuple[str, ...], results: Path, samples: Path, served: str, out: Path
) -> None:
    case = read_case(case_toml)
    data = Samples(case, samples)
    listed = read_json(samples)
    used = [case.path, samples, *(Path(listed[k]) for k in ("labels", "groups") if k in listed)]
    given = read_given(case, data, results, used)
    facts = {name: read_facts(case, name, results, served == "yes", used) for name in variants}
    try:
        found = claims(given, facts)
    except ValueError as error:
        found = {"refused": str(error), "variants": {}}
    content = {
        **record("claims", used, ("numpy", "scipy")),
        "served": served,
    }
    write_json(out, content | found)
    click.echo(f"claims: {words(found)}")


def read_given(case: Case, data: Samples, results: Path, used: list[Path]) -> Given:
    """What all variants are held against; the files read are added to `used`."""
    logits, threshold, repeats = (
        results / f"{REFERENCES[case.family].name}.{end}"
        for end in ("logits.npy", "threshold.json", "repeats.json")
    )
    used += [logits, threshold, repeats]
    return Given(
        reference=load(logits),
        labels=data.labels.astype(bool),
        threshold=read_json(threshold)["metrics"]["logit"],
        precision=case.precision,
        rules=case.rules,
        groups=data.groups,
        noise=frozenset(read_json(repeats)["noise"]),
        traffic=traffic(case, REFERENCES[case.family].name, results, used),
    )


def read_facts(case: Case, name: str, results: Path, served: bool, used: list[Path]) -> Facts:
    """What is known of one variant; the files read are added to `used`."""
    logits, verdicts, repeats = (
        results / f"{name}.{end}" for end in ("logits.npy", "verdicts.json", "repeats.json")
    )
    used += [logits, verdicts, repeats]
    elsewhere = set(read_json(repeats)["samples"])
    if served:
        parity, load_file = results / f"{name}.served.json", results / "served_latency.json"
        used += [path for path in (parity, load_file) if path not in used]
        elsewhere |= set(read_json(parity)["samples"])
        elsewhere |= set(read_json(load_file)["variants"][name]["samples"])
    variant = BY_NAME[name]
    return Facts(
        logits=load(logits),
        threshold=deployed(read_json(verdicts)),
        calibrated=variant.calibrated,
        repaired=variant.repaired,
        elsewhere=frozenset(elsewhere),
        traffic=traffic(case, name, results, used),
    )


def traffic(case: Case, name: str, results: Path, used: list[Path]) -> Any:
    """The variant's logits of the unlabelled samples, (m,) float32; None where the case has none."""
    if case.unlabelled is None:
        return None
    path = results / f"{name}.traffic.npy"
    used.append(path)
    return load(path)


def words(found: dict[str, Any]) -> str:
    """One line: the scheme, and the bound of each variant."""
    if "refused" in found:
        return f"none, {found['refused']}"
    told = [
        f"{name} {row['bounded']['flips']} of {row['bounded']['samples']} flip "
        f"(at most {row['flip_rate_upper']:.2%} of new ones)"
        for name, row in found["variants"].items()
        if row["samples"]
    ]
    return f"{found['scheme']}, " + ("; ".join(told) or "no sample is left to judge a variant on")


if __name__ == "__main__":
    main()
