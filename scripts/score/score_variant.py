"""Run all samples through one variant and store one logit for each.

Reads   case.toml, samples.json, the model (the weights for torch_fp32, else model.onnx or model.plan)
Writes  <variant>.logits.npy (float32, one per sample) and <variant>.score.json; of the unlabelled
        samples, with --samples traffic.json, <variant>.traffic.npy and <variant>.traffic.json
Runs    on the CPU, or with --device cuda on a GPU; TensorRT always on a GPU
Usage   python3 -m scripts.score.score_variant data/digits/case.toml --variant onnx_fp32 \
            --samples results/digits/samples.json --mode local --device cpu \
            --model model_repository/digits_onnx_fp32/1/model.onnx \
            --out results/digits/onnx_fp32.logits.npy
Prints  onnx_fp32: 899 samples scored on CPUExecutionProvider
"""

from pathlib import Path

import click
import numpy as np

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Run, Samples, write_header
from scripts.files import hashes, write_json, writing
from scripts.graphs.session import default_threads
from scripts.step import progress, record, step
from scripts.variants import BY_NAME, part
from scripts.verdicts.heads import log_odds, saturated

BLOCK_ROWS = 8192  # raw outputs turned into logits at a time


@step(__doc__, "case", "variant", "samples", "model", "mode", "device", "out")
def main(
    case_toml: Path, variant: str, samples: Path, model: Path, mode: str, device: str, out: Path
) -> None:
    case = read_case(case_toml)
    data = Samples(case, samples)
    kind, told = get_step(out, data.labelled)
    threads = default_threads()
    opening = part(variant, "open")
    opened = opening.open_variant(case, variant, model, device, threads)
    with opened as (run, provider), writing(out) as temporary:
        found = score(case, run, data, temporary, variant)
        if BY_NAME[variant].source is None and found["nonfinite"]:
            raise click.ClickException(
                f"{variant} gives NaN or infinity for {found['nonfinite']} of {len(data)} samples. "
                "A reference must give a logit for each: look at the weights and the inputs."
            )
    content = {
        **record(
            kind, [case.path, samples, model], (*opening.PACKAGES, "numpy"), variant, mode, device
        ),
        "provider": provider,
        "threads": threads,
        "batch": case.max_batch,
        "logits": hashes([out]),
        "metrics": found,
    }
    write_json(told, content)
    which = "" if data.labelled else "unlabelled "
    click.echo(f"{variant}: {len(data)} {which}samples scored on {provider}")


def get_step(out: Path, labelled: bool) -> tuple[str, Path]:
    """(step, the JSON beside the logits). Raises click.ClickException where the names do not fit."""
    ending, json, step = (
        (".logits.npy", ".score.json", "score")
        if labelled
        else (".traffic.npy", ".traffic.json", "traffic_score")
    )
    if not out.name.endswith(ending):
        raise click.ClickException(
            f"The logits of {'labelled' if labelled else 'unlabelled'} samples go into a file that "
            f"is called <variant>{ending}, and --out is {out}. Change --out, or --samples."
        )
    return step, out.with_name(out.name.removesuffix(ending) + json)


def score(case: Case, run: Run, data: Samples, out: Path, name: str) -> dict[str, int]:
    """Write the logits, batch by batch, to `out`; counts of samples, saturated and not finite."""
    counts = {"samples": len(data), "saturated": 0, "nonfinite": 0}
    done, raw, rows = 0, [], 0
    with open(out, "wb") as file, progress(len(data), name) as bar:
        write_header(file, "float32", (len(data),))
        for batch in data.batches(case.max_batch):
            raw.append(run(batch))
            rows += len(raw[-1])
            if rows >= BLOCK_ROWS or done + rows == len(data):
                block = np.concatenate(raw)
                try:
                    z = log_odds(block, case.head, case.positive_class).astype(np.float32)
                except ValueError as error:
                    raise click.ClickException(f"{name} on {case.path}: {error}.") from None
                file.write(z.tobytes())
                counts["saturated"] += saturated(block, case.head)
                counts["nonfinite"] += int((~np.isfinite(z)).sum())
                done, raw, rows = done + rows, [], 0
                bar.update(done - bar.n)
    if done != len(data):
        raise ValueError(f"scored {done} of {len(data)} samples")
    return counts


if __name__ == "__main__":
    main()
