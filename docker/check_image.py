"""Import and run in an image what the steps need there: the last line of its Dockerfile.

Runs   while an image is built, without a GPU
Usage  python3 check_image.py pytorch
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which


def check_pytorch() -> None:
    """Export a model and run it; ONNX Runtime's CUDA libraries are all there."""
    import onnx
    import onnxconverter_common
    import onnxruntime
    import torch

    model = torch.nn.Linear(3, 1).eval()
    rows = torch.ones(2, 3)
    torch.onnx.export(model, (rows,), "/tmp/check.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession("/tmp/check.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: rows.numpy()})[0]
    if abs(found - model(rows).detach().numpy()).max() > 1e-5:
        sys.exit(f"ONNX Runtime {onnxruntime.__version__} gives {found}, PyTorch {model(rows)}.")
    check_cuda_provider(Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so")
    print("torch", torch.__version__, "onnx", onnx.__version__, onnxconverter_common.__name__)


def check_cuda_provider(library: Path) -> None:
    """All that ONNX Runtime's CUDA provider links to is in the image, but the driver's own library."""
    if not library.is_file():
        print("ONNX Runtime without CUDA: this image runs it on the CPU")
        return
    linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in linked.stdout.splitlines() if "not found" in line]
    missing = [line for line in lines if not line.startswith("libcuda.so.1 ")]
    if missing:
        sys.exit(f"ONNX Runtime's CUDA provider cannot load in this image: {'; '.join(missing)}.")
    print("ONNX Runtime's CUDA provider finds all its libraries")


def check_tensorrt() -> None:
    """trtexec is there, and what runs and compares engines can be imported."""
    import numpy
    import onnxruntime
    import polygraphy

    place = "/opt/tensorrt/bin:/usr/src/tensorrt/bin:/workspace/tensorrt/bin"
    trtexec = which("trtexec", path=f"{os.environ['PATH']}:{place}")
    if trtexec is None:
        sys.exit(f"trtexec is neither on PATH nor in {place}.")
    # Its import needs the driver's library, which is there only in a container started with a GPU.
    if find_spec("tensorrt") is None:
        sys.exit("The Python package tensorrt is missing.")
    print(trtexec, "polygraphy", polygraphy.__version__, numpy.__name__, onnxruntime.__name__)


def check_tritonserver() -> None:
    """The server starts as far as its help, and what asks it can be imported."""
    import click
    import numpy
    import tritonclient.grpc.aio

    server = "/opt/tritonserver/bin/tritonserver"
    done = subprocess.run([server, "--help"], capture_output=True, text=True)
    if "--model-repository" not in done.stdout + done.stderr:
        sys.exit(f"{server} --help fails: {done.stderr or done.stdout}")
    print(server, "numpy", numpy.__version__, click.__name__, tritonclient.__name__)


def check_client() -> None:
    """perf_analyzer runs (a placeholder package of that name does not), and so does its step."""
    import click
    import numpy
    import PIL

    subprocess.run(["perf_analyzer", "--version"], check=True)
    print("numpy", numpy.__version__, click.__name__, PIL.__name__)


def check_pydantic() -> None:
    """Every step reads case.toml with pydantic 2, ours or the image's own."""
    import pydantic

    if not pydantic.VERSION.startswith("2."):
        sys.exit(f"This image brings pydantic {pydantic.VERSION}, and case.toml is read with 2.x.")
    pydantic.create_model("Table", key=(int, ...))(key=1)


if __name__ == "__main__":
    check_pydantic()
    {
        "pytorch": check_pytorch,
        "tensorrt": check_tensorrt,
        "tritonserver": check_tritonserver,
        "client": check_client,
    }[sys.argv[1]]()
