"""Fix the threshold that gives the wanted precision on the reference.

Reads   case.toml, torch_fp32.logits.npy, labels.npy
Writes  torch_fp32.threshold.json
Runs    on the CPU
Usage   python3 -m scripts.verdicts.choose_threshold data/digits/case.toml \
            --logits results/digits/torch_fp32.logits.npy --labels results/digits/labels.npy \
            --out results/digits/torch_fp32.threshold.json
Prints  threshold: logit >= 0.4321 gives precision 0.9011 (82 of 91) and recall 0.9535
"""

from pathlib import Path

import click

from scripts.case.read_case import read_case
from scripts.data.samples import load
from scripts.files import write_json
from scripts.step import record, step
from scripts.variants import REFERENCES
from scripts.verdicts.policies import NoGuarantee, choose, compared
from scripts.verdicts.thresholds import Unreachable


@step(__doc__, "case", "logits", "labels", "out")
def main(case_toml: Path, logits: Path, labels: Path, out: Path) -> None:
    case = read_case(case_toml)
    try:
        found = choose(load(logits), load(labels), case.precision, case.rules)
    except Unreachable as error:
        y = load(labels)
        turned = error.best <= 1.5 * float(y.mean())  # hardly better than calling all positive
        raise click.ClickException(
            f"{case.name}: {error}. "
            + ("Are positive or positive_class the wrong way round? " if turned else "")
            + f"Set precision in {case_toml} to at most that, or train a better model."
        ) from None
    except NoGuarantee as error:
        helps = "Bring more labelled samples" if error.needed is not None else "Lower precision"
        raise click.ClickException(
            f"{case.name}: {error}. {helps}, or leave guarantee out of {case_toml}."
        ) from None
    except ValueError as error:
        raise click.ClickException(f"{logits}: {error}.") from None
    content = {
        **record(
            "threshold",
            [case_toml, logits, labels],
            ("numpy", "scipy"),
            REFERENCES[case.family].name,
        ),
        "wanted_precision": float(case.precision),
        "policy": "guarantee" if case.rules.guarantee is not None else case.rules.policy,
        "guarantee": case.rules.guarantee,
        "policies": compared(load(logits), load(labels), case.precision, case.rules),
        "metrics": {
            "logit": found.logit,
            "gap_low": found.gap_low if found.gap_low > float("-inf") else None,
            "gap_high": found.gap_high,
            "predicted_positives": found.predicted_positives,
            "true_positives": found.true_positives,
            "precision": found.precision,
            "recall": found.recall,
            "feasible_runs": found.feasible_runs,
            "best_precision": found.best_precision,
        },
    }
    write_json(out, content)
    click.echo(
        f"threshold: logit >= {found.logit:.6g} gives precision {found.precision:.4f} "
        f"({found.true_positives} of {found.predicted_positives}) and recall {found.recall:.4f}"
    )


if __name__ == "__main__":
    main()
