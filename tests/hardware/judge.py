"""What a variant has to fulfil on the GPU, as pure functions of what was found."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.graphs.session import PROVIDERS
from scripts.verdicts.compare_verdicts import deviation, flips

# What float32 may differ by between a CPU and a GPU, of 1 + the largest logit. On a CPU, sums in
# another order move the logits of resnet50.py by 4e-7 of that, rounding as TF32 does by 3e-4.
EXACT = 1e-5


def compared(
    logits: NDArray[np.float32], reference: NDArray[np.float32], threshold: float
) -> dict[str, Any]:
    """Flips and deviations from the reference on the CPU."""
    nobody = np.zeros(len(logits), bool)  # the labels play no part in what is read off here
    flipped = flips(logits, reference, nobody, threshold, None)
    delta = deviation(logits, reference, threshold)
    return {
        "samples": len(logits),
        "nonfinite": int((~np.isfinite(logits)).sum()),
        "flips": flipped["total"],
        "flipped": [one["index"] for one in flipped["samples"]],
        "deviation_mean_absolute": delta["mean_absolute"],
        "deviation_max_absolute": delta["max_absolute"],
        "reference_max_absolute": float(np.abs(reference).max()),
    }


def complaints(
    found: dict[str, Any], device: str, exact: bool, stable: bool, noise: list[int]
) -> list[str]:
    """Why a variant does not pass; empty where it does.

    exact: it is held to the CPU's verdicts and logits, as float32 is; stable: its verdicts may
    depend on batch, slot and run only where the reference's do, in the samples `noise`.
    """
    said = []
    if not is_on(found["provider"], device):
        said.append(f"{found['provider']} ran it, and {device} was asked for")
    if found["nonfinite"]:
        said.append(f"{found['nonfinite']} of {found['samples']} logits are NaN or infinite")
    beyond = sorted(set(found["flipped"]) - set(noise))
    if exact and beyond:
        said.append(f"{len(beyond)} verdicts differ from the CPU's, first in sample {beyond[0]}")
    largest = found["deviation_max_absolute"]
    allowed = EXACT * (1 + found["reference_max_absolute"])
    if exact and largest is not None and largest > allowed:
        said.append(f"a logit is off by {largest:.2g}; true float32 stays within {allowed:.2g}")
    depends = sorted(set(found["depends"]) - set(noise))
    if stable and depends:
        said.append(
            f"{len(depends)} verdicts depend on batch, slot or run, first sample {depends[0]}"
        )
    moves = found["depends_max_absolute"]
    if exact and moves is not None and moves > allowed:
        said.append(f"a logit moves by {moves:.2g} with batch, slot or run")
    restless = sum(found["conditions"][one]["flips"] for one in ("again", "loaded again"))
    if exact and restless:
        said.append(f"{restless} verdicts change from one run to the next")
    return said


def is_on(provider: str, device: str) -> bool:
    """Whether what ran a variant, in the words of `open_variant`, computes on the device."""
    if provider == "TensorRT":
        return device == "cuda"
    return provider == PROVIDERS[device][0] or provider.endswith(f" on {device}")


def misplaced(nodes: dict[str, dict[str, int]], device: str) -> list[str]:
    """Complaints about nodes, operator -> provider -> how many, as ONNX Runtime placed them.

    Small nodes, such as those on shapes, may stay on the CPU; convolutions and products may not.
    """
    heavy = {one: nodes[one] for one in nodes if any(k in one for k in ("Conv", "Gemm", "MatMul"))}
    if not heavy:
        return ["its profile lists no convolution and no matrix product"]
    return [
        f"{count} {operator} ran on {provider}, and {device} was asked for"
        for operator, placed in heavy.items()
        for provider, count in placed.items()
        if not is_on(provider, device)
    ]
