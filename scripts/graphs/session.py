"""ONNX Runtime: sessions that run where they were told to, and the trial of a model file."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case
from scripts.data.samples import Batch

if TYPE_CHECKING:
    import onnxruntime

PACKAGES = ("onnxruntime", "onnx")
# TF32 off and the convolution algorithm fixed: true float32, and the same result at every load.
PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
}


def default_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def open_session(path: Path | bytes, device: str, threads: int) -> "onnxruntime.InferenceSession":
    """A session on `device` ("cpu" or "cuda") of a file, or of the bytes of one.

    Raises click.ClickException, never falls back. Idle worker threads do not spin: other sessions, and
    other steps, run beside it.
    """
    import onnxruntime

    provider, settings = PROVIDERS[device]
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise click.ClickException(
            f"ONNX Runtime was asked for {provider}, and this build has only "
            f"{', '.join(available)}. Install onnxruntime-gpu, or run with GPU=no."
        )
    if device == "cuda":
        load_cuda()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            path if isinstance(path, bytes) else str(path),
            options,
            providers=[provider],
            provider_options=[settings],
        )
    except Exception as error:  # its own exception types are not public
        raise click.ClickException(
            f"ONNX Runtime does not load {'a model' if isinstance(path, bytes) else path} on {device}: "
            f"{str(error).strip()}"
        ) from None
    if session.get_providers()[0] != provider:
        raise click.ClickException(
            f"ONNX Runtime was asked for {provider} and fell back to "
            f"{', '.join(session.get_providers())}. Check the driver and the CUDA and cuDNN "
            "libraries, or run with GPU=no."
        )
    return session


def load_cuda() -> None:
    """Load the CUDA libraries that came with PyTorch, where it is installed.

    From PyPI they lie in folders of their own, where ONNX Runtime alone does not find them. In NVIDIA's
    images the system's are found without.
    """
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  (it loads what it is linked to)


def load_elsewhere(path: Path, out: Path) -> None:
    """Load `path`, which is to become `out`, on the CPU in a process of its own, which may crash.

    ONNX Runtime's optimiser is native code, and some graphs end it with a signal.
    """
    program = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise click.ClickException(
            f"ONNX Runtime itself crashes ({name}) while it loads what was to become {out}, and so "
            "would a server with the same version. Leave the variant out with skip in case.toml, "
            "or change the part of the model that the crash comes from."
        )


def run_session(session: "onnxruntime.InferenceSession", batch: Batch) -> NDArray[Any]:
    """The first output for one batch."""
    output: NDArray[Any] = session.run(None, batch)[0]
    return output


def trial_sizes(max_batch: int) -> list[int]:
    """The batch sizes of a trial: one, an odd one, the largest."""
    odd = max_batch - 1 if max_batch % 2 == 0 else max_batch - 2
    return sorted({1, max(1, odd), max_batch})


def try_model(path: Path, case: Case, batch: Batch, out: Path, device: str = "cpu") -> None:
    """Load `path`, which is to become `out`, on `device` and run it at batch 1, an odd batch and the largest.

    `batch` holds at least `case.max_batch` samples. Raises click.ClickException unless inputs,
    and outputs at each size, are what case.toml declares.
    """
    if device == "cpu":  # what a GPU computes, the CPU may have no code for
        load_elsewhere(path, out)
    session = open_session(path, device, default_threads())
    found = {one.name: tuple(one.shape[1:]) for one in session.get_inputs()}
    wanted = {one.name: one.shape for one in case.inputs}
    if found != wanted:
        raise click.ClickException(f"The inputs of {out} are {found}, and {wanted} is needed.")
    for size in trial_sizes(case.max_batch):
        rows = {name: array[:size] for name, array in batch.items()}
        try:
            output = run_session(session, rows)
        except Exception as error:  # its own exception types are not public
            raise click.ClickException(
                f"{out} fails in ONNX Runtime on a batch of {size}: {str(error).strip()}"
            ) from None
        if output.shape[:1] != (size,) or output.dtype != np.float32:
            raise click.ClickException(
                f"{out} gives {output.dtype} of shape {output.shape} for a batch of {size}; one "
                "float32 row per sample is needed. Something in the model fixes the batch size."
            )
