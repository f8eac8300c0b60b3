"""What happens when a GPU is asked for: in a process of its own, once with the GPU hidden.

Usage   python3 refusal.py onnxruntime cuda MODEL.onnx case.toml
Prints  in its last line, as JSON, what runs the model, or the sentence with which it was refused
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 300
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.graphs.session import PROVIDERS  # noqa: E402


def refusal_row(subject: Any, runtime: str, hidden: bool) -> dict[str, Any]:
    """A row: hidden, it must be refused in a sentence; visible, it must run where it was told to.

    The second shows that it is the hiding that the first is refused for. In a rehearsal there is no
    GPU to hide, and what runs is the CPU.
    """
    device = subject.device
    model = subject.artefact("torch_fp32" if runtime == "torch" else "onnx_fp32")
    command = [sys.executable, __file__, runtime, "cuda" if hidden else device]
    command += [str(model), str(subject.case.path)]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if hidden else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    sys.stderr.write(done.stdout + done.stderr)
    told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    said = judge(told, done.returncode, hidden, PROVIDERS[device][0])
    words = said or told.get("refused") or f"runs on {told['provider']}"
    return {"state": "failed" if said else "ok", "words": words, "figures": {} if hidden else told}


def judge(told: dict[str, str], code: int, hidden: bool, wanted: str) -> str:
    """What is wrong with the answer; "" where nothing is."""
    if code != 0:
        return f"the process ended with exit code {code}, without a sentence"
    if hidden:
        return "" if "refused" in told else f"runs on {told['provider']}, and nothing is said"
    if told.get("provider") != wanted:
        return told.get("refused") or f"runs on {told['provider']} and not on {wanted}"
    return ""


def main() -> None:
    import click

    runtime, device, model, case = sys.argv[1:]
    try:
        told = {"provider": provider(runtime, device, Path(model), Path(case))}
    except click.ClickException as error:
        told = {"refused": error.message}
    print("\n" + json.dumps(told))


def provider(runtime: str, device: str, model: Path, case: Path) -> str:
    """What runs the model, by the project's own opening of it; torch is imported only for torch."""
    if runtime == "torch":
        from scripts.case.read_case import read_case
        from scripts.families.torch.open import open_variant

        read = read_case(case)
        with open_variant(read, "torch_fp32", read.weights, device, 1) as (_, name):
            return name
    from scripts.graphs.session import open_session

    return str(open_session(model, device, 1).get_providers()[0])


if __name__ == "__main__":
    main()
