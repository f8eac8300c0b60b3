"""Build a TensorRT engine from ONNX with trtexec: strongly typed, TF32 off, one profile.

The precision of each layer is that of its ONNX node, so a float16 engine comes from the float16
ONNX; no flag asks for it. The command line is one that trtexec 10.3 to 11.x take. Whether the build
succeeded is said by trtexec's exit code.

Reads   case.toml, model.onnx, the timing cache of earlier builds where there is one
Writes  model.plan, the log of the build, the timing cache
Runs    in the tensorrt container, on a GPU
Usage   python3 -m scripts.backends.tensorrt.build_engine data/digits/case.toml --variant trt_fp16 \
            --model model_repository/digits_onnx_fp16/1/model.onnx \
            --timing-cache results/.timing-26.07.cache --log results/digits/trt_fp16.build.log \
            --out model_repository/digits_trt_fp16/1/model.plan
Prints  trt_fp16: engine of 0.3 MB for batches 1 to 32, built in 41 s
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import click

from scripts.backends.tensorrt.form import tensorrt_form
from scripts.case.read_case import Case, read_case
from scripts.files import writing
from scripts.step import step
from scripts.variants import BY_NAME

PLACES = ("/opt/tensorrt/bin", "/usr/src/tensorrt/bin", "/workspace/tensorrt/bin")
SHOWN = 5  # lines of trtexec's own complaint


@step(__doc__, "case", "variant", "model", "log", "out")
@click.option("--timing-cache", required=True, type=click.Path(path_type=Path))
def main(
    case_toml: Path, variant: str, model: Path, timing_cache: Path, log: Path, out: Path
) -> None:
    case = read_case(case_toml)
    trtexec = find_trtexec()
    start = time.monotonic()
    for folder in (log.parent, timing_cache.parent):
        folder.mkdir(parents=True, exist_ok=True)
    form = tensorrt_form(model, BY_NAME[variant].precision)
    with writing(out) as temporary, form as taken:
        run_trtexec(get_command(trtexec, case, taken, timing_cache, temporary), log)
        if not temporary.is_file() or not temporary.stat().st_size:
            raise click.ClickException(
                f"trtexec says that it succeeded and wrote no engine for {out}. Its words stand in "
                f"{log}."
            )
    click.echo(
        f"{variant}: engine of {out.stat().st_size / 1e6:.2g} MB for batches 1 to {case.max_batch}, "
        f"built in {time.monotonic() - start:.0f} s"
    )


def find_trtexec() -> str:
    """Where trtexec is: on PATH, or where the NGC images keep it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    found = shutil.which("trtexec", path=path)
    if found is None:
        raise click.ClickException(
            f"trtexec is neither on PATH nor in {', '.join(PLACES)}. Engines are built in the "
            "tensorrt container: run `make all MODE=docker`."
        )
    return found


def get_command(trtexec: str, case: Case, model: Path, cache: Path, plan: Path) -> list[str]:
    """The command line: only flags that trtexec 10.3 to 11.x have in common.

    The profile reaches from batch 1 to the case's largest, for which tactics are chosen.
    """
    largest = [f"{one.name}:{_by_x(case.max_batch, one.shape)}" for one in case.inputs]
    single = [f"{one.name}:{_by_x(1, one.shape)}" for one in case.inputs]
    return [
        trtexec,
        f"--onnx={model}",
        "--stronglyTyped",
        "--noTF32",
        f"--minShapes={','.join(single)}",
        f"--optShapes={','.join(largest)}",
        f"--maxShapes={','.join(largest)}",
        f"--timingCacheFile={cache}",
        "--profilingVerbosity=detailed",
        "--skipInference",
        f"--saveEngine={plan}",
    ]


def _by_x(batch: int, shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in (batch, *shape))


def run_trtexec(command: list[str], log: Path) -> None:
    """Run it with all its output in `log`. Raises click.ClickException with its own last words."""
    with open(log, "w", encoding="utf-8") as file:
        file.write(shlex.join(command) + "\n")
        file.flush()
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode == 0:
        return
    if done.returncode < 0 or done.returncode > 128:
        number = -done.returncode if done.returncode < 0 else done.returncode - 128
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        how = f"was ended by {name}"
        if name == "SIGKILL":
            how += " (the usual cause is too little memory)"
    else:
        how = f"failed with exit code {done.returncode}"
    raise click.ClickException(f"trtexec {how}: {_words(log)} The whole log stands in {log}.")


def _words(log: Path) -> str:
    """What trtexec complained of: its lines marked as errors, else its last ones."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    errors = [line for line in lines if "[E]" in line] or [line for line in lines if line.strip()]
    return "\n".join(errors[-SHOWN:]) + "\n" if errors else "it printed nothing."


if __name__ == "__main__":
    main()
