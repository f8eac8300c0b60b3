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

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case, read_case
from scripts.data.samples import Batch, Samples, write_header
from scripts.families.torch.model import exact_float32, load_model, run_torch
from scripts.files import gpu_name, hashes, versions, write_json, writing
from scripts.graphs.session import default_threads, open_session, run_session
from scripts.variants import BY_NAME, REFERENCE
from scripts.verdicts.heads import log_odds, saturated

Run = Callable[[Batch], NDArray[Any]]
BLOCK_ROWS = 8192  # raw outputs turned into logits at a time


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case_toml", type=click.Path(path_type=Path))
@click.option("--variant", required=True, type=click.Choice(list(BY_NAME)))
@click.option("--samples", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path))
@click.option("--mode", required=True, type=click.Choice(["local", "docker"]))
@click.option("--device", required=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(
    case_toml: Path, variant: str, samples: Path, model: Path, mode: str, device: str, out: Path
) -> None:
    case = read_case(case_toml)
    data = Samples(case, samples)
    step, told = get_step(out, data.labelled)
    threads = default_threads()
    opened = open_variant(case, variant, model, device, threads)
    with opened as (run, provider), writing(out) as temporary:
        found = score(case, run, data, temporary, variant)
        if variant == REFERENCE.name and found["nonfinite"]:
            raise click.ClickException(
                f"{variant} gives NaN or infinity for {found['nonfinite']} of {len(data)} samples. "
                "A reference must give a logit for each: look at the weights and the inputs."
            )
    content = {
        "variant": variant,
        "step": step,
        "mode": mode,
        "device": device,
        "gpu": gpu_name(device),
        "provider": provider,
        "threads": threads,
        "batch": case.max_batch,
        "inputs": hashes([case.path, samples, model]),
        "versions": versions(BY_NAME[variant].package, "numpy"),
        "logits": hashes([out]),
        "metrics": found,
    }
    write_json(told, content)
    kind = "" if data.labelled else "unlabelled "
    click.echo(f"{variant}: {len(data)} {kind}samples scored on {provider}")


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


@contextmanager
def open_variant(
    case: Case, variant: str, model: Path, device: str, threads: int, spin: bool = True
) -> Iterator[tuple[Run, str]]:
    """(a function from batch to raw output, the name of what runs it)."""
    runtime = BY_NAME[variant].runtime
    if runtime == "torch":
        yield open_torch(case, device, threads)
    elif runtime == "torchscript":
        from scripts.backends.pytorch.trace_torchscript import open_torchscript

        set_torch(device, threads)
        with open_torchscript(model, device) as run:
            yield run, f"TorchScript on {device}"
    elif runtime == "tensorrt":
        from scripts.backends.tensorrt.engine import infer, open_engine

        if device != "cuda":
            raise click.ClickException(
                f"{variant} runs on a GPU only; it was asked for on the {device}. Run with GPU=yes."
            )
        with open_engine(model) as runner:
            yield (lambda batch: only(infer(runner, batch))), "TensorRT"
    else:
        session = open_session(model, device, threads, spin)
        yield (lambda batch: run_session(session, batch)), session.get_providers()[0]


def only(outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The one output that every converted model has."""
    [output] = outputs.values()
    return output


def open_torch(case: Case, device: str, threads: int) -> tuple[Run, str]:
    """The reference, in true float32."""
    set_torch(device, threads)
    network = load_model(case).to(device)
    return (lambda batch: run_torch(network, batch, device)), f"torch on {device}"


def set_torch(device: str, threads: int) -> None:
    """True float32, and so many threads. Raises click.ClickException without a GPU to use."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException(
            "PyTorch was asked for a GPU and finds none (torch.cuda.is_available() is False). "
            "Check the driver, or run with GPU=no."
        )
    exact_float32()
    torch.set_num_threads(threads)


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


def progress(total: int | None, name: str, unit: str = "samples") -> Any:
    """A bar on a terminal, nothing otherwise: the step prints its one line at the end."""
    from tqdm import tqdm

    return tqdm(total=total, desc=name, unit=unit, leave=False, disable=not sys.stderr.isatty())


if __name__ == "__main__":
    main()
