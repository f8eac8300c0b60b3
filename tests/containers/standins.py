"""Base images that stand in for NVIDIA's, which cannot be had here.

They imitate what matters of them: Debian with Python, PyTorch and ONNX preinstalled from this
project's .venv, PIP_CONSTRAINT set, an entrypoint that prints a banner, bash set up through BASH_ENV,
TF32 switched on in the environment, TRT_VERSION, no passwd entry for the caller. trtexec and
nvidia-smi are shell scripts; the server is a real one, and perf_analyzer a small program that asks it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SITE = Path("usr/local/lib/python3.11/dist-packages")
# What NVIDIA's PyTorch image brings, with all that it needs.
BROUGHT = ("torch", "functorch", "torchgen", "onnx", "numpy", "typing_extensions", "filelock",
           "sympy", "isympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "google",
           "protobuf", "ml_dtypes", "setuptools", "pkg_resources", "_distutils_hack")  # fmt: skip
# What no step imports: tools for developers, and the wheel whose binaries are taken.
UNUSED = ("pip", "__pycache__", "mypy", "mypyc", "pytriton", "nvidia_pytriton", "pygments", "grimp",
          "importlinter", "rich", "hypothesis")  # fmt: skip
UNUSED_INSIDE = {"torch": ("include", "test", "protoc*"), "onnx": ("test",)}
TRTEXEC = """\
#!/bin/sh
# Stands in for trtexec: says what it was asked, and writes a file in place of an engine.
printf '%s\\n' "$@"
if [ -e trtexec_fails ]; then
    echo '[E] Error[4]: a layer cannot be built'
    echo '&&&& FAILED TensorRT.trtexec'
    exit 1
fi
for one in "$@"; do case $one in --saveEngine=*) echo engine > "${one#*=}" ;; esac; done
echo '&&&& PASSED TensorRT.trtexec'
"""
PERF_ANALYZER = """\
#!/usr/bin/python3
# Stands in for perf_analyzer: takes no other options than it does, sends what --input-data holds
# to the server, and writes its report. With 2 in flight it is never stable.
import argparse, base64, json, statistics, sys, threading, time

if sys.argv[1:] == ["--version"]:
    sys.exit(print("Perf Analyzer Version 0 (perf_analyzer stands in)", file=sys.stderr))
parser = argparse.ArgumentParser()
for name in ("-m", "-u", "-i", "-b", "-f", "--input-data", "--concurrency-range",
             "--warmup-request-count", "--percentile"):
    parser.add_argument(name, required=True)
for name in ("--measurement-mode", "--measurement-request-count", "--max-trials", "--request-count"):
    parser.add_argument(name)
asked = parser.parse_args()
assert (asked.i, asked.b, asked.percentile) == ("grpc", "1", "50")
import numpy, tritonclient.grpc as triton
from tritonclient.utils import triton_to_np_dtype
client = triton.InferenceServerClient(asked.u)
types = {one.name: one.datatype for one in client.get_model_metadata(asked.m).inputs}
steps = []
for step in json.load(open(asked.input_data))["data"]:
    assert step.keys() == types.keys()
    steps.append([])
    for name, tensor in step.items():
        raw = base64.b64decode(tensor["content"]["b64"], validate=True)
        array = numpy.frombuffer(raw, triton_to_np_dtype(types[name])).reshape(1, *tensor["shape"])
        one = triton.InferInput(name, list(array.shape), types[name])
        steps[-1].append(one.set_data_from_numpy(array))
start, stop, _ = map(int, asked.concurrency_range.split(":"))
assert start == stop
count, took = int(asked.request_count or 100), []
places = iter(range(count))
lock = threading.Lock()

def work():
    own = triton.InferenceServerClient(asked.u)
    while True:
        with lock:
            place = next(places, None)
        if place is None:
            return
        begin = time.perf_counter()
        own.infer(asked.m, steps[place % len(steps)])
        took.append(time.perf_counter() - begin)

begin = time.perf_counter()
threads = [threading.Thread(target=work) for _ in range(start)]
for one in threads:
    one.start()
for one in threads:
    one.join()
seconds = time.perf_counter() - begin
assert len(took) == count
time.sleep(1)  # the real one takes longer still: time enough to stop it or its server
if start == 2 and not asked.request_count:
    print("Failed to obtain stable measurement.", file=sys.stderr)
    sys.exit(2)
cuts = statistics.quantiles(took, n=100)
latencies = [int(cuts[p - 1] * 1e6) for p in (50, 90, 95, 99)]
with open(asked.f, "w") as file:
    print("Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
          "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
          "p50 latency,p90 latency,p95 latency,p99 latency", file=file)
    print(start, count / seconds, *[1] * 7, *latencies, sep=",", file=file)
"""
ENTRYPOINT = """\
#!/bin/bash
echo '== a banner on standard output =='
exec "$@"
"""
NVIDIA_SMI = """\
#!/bin/sh
case "$*" in
*query-gpu*) echo 'NVIDIA Stand-in, 610.43.02, 9.0' ;;
*) echo 'GPU 0: NVIDIA Stand-in (UUID: GPU-0)' ;;
esac
"""
SCRIPTS = {
    "opt/nvidia/nvidia_entrypoint.sh": ENTRYPOINT,
    "opt/tensorrt/bin/trtexec": TRTEXEC,
    "usr/local/bin/perf_analyzer": PERF_ANALYZER,
    "usr/local/bin/nvidia-smi": NVIDIA_SMI,
}


def debian(folder: Path) -> None:
    """The files of a Debian with Python, not set up by its own scripts, and the host's certificates."""
    packages = "python3,python3-pip,ca-certificates,libgomp1,libstdc++6,libpython3.11"
    subprocess.run(
        ["debootstrap", "--foreign", "--variant=minbase", f"--include={packages}", "bookworm",
         str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    unpacked = set((folder / "debootstrap/required").read_text().split())
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        if package.name.partition("_")[0] not in unpacked:
            unpack(package, folder)
    shutil.rmtree(folder / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(folder / "debootstrap")
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (folder / "etc/group").write_text("root:x:0:\n")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "etc/ssl/certs")
    for name, text in SCRIPTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (folder / "etc/pip").mkdir(exist_ok=True)
    # Would refuse two of the packages that are added.
    (folder / "etc/pip/constraint.txt").write_text("onnxscript==0.1.0\nonnx-ir==0.0.1\n")
    (folder / "etc/shinit_v2").write_text("export READ_BY_BASH=yes\n")


def unpack(package: Path, folder: Path) -> None:
    """The files of a .deb; /bin and /lib stay the links that they are."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as tar:
        command = ["tar", "-C", str(folder), "--keep-directory-symlink", "-x"]
        subprocess.run(command, stdin=tar.stdout, check=True)


def brought(name: str) -> bool:
    """Whether NVIDIA's PyTorch image has this package, or folder of one."""
    return name in BROUGHT


def added(name: str) -> bool:
    """Whether this project adds it, and a step needs it."""
    return name not in (*BROUGHT, *UNUSED) and not name.endswith("__mypyc")


def furnish(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Put packages of this Python into the image's."""
    source = Path(os.path.realpath(sys.prefix)) / "lib/python3.11/site-packages"
    target = folder / SITE
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        name = path.name.removesuffix(".dist-info").partition("-")[0].removesuffix(".libs")
        name = name.removesuffix(".py").partition(".cpython")[0]
        if not wanted(name):
            continue
        if path.is_dir():
            ignored = shutil.ignore_patterns(*UNUSED_INSIDE.get(name, ()))
            shutil.copytree(
                path, target / path.name, ignore=ignored, copy_function=_link, symlinks=True
            )
        else:
            shutil.copy2(path, target / path.name)


def _link(source: str, target: str) -> None:
    """A hard link where that is possible: torch alone has 550 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def triton(folder: Path) -> None:
    """/opt/tritonserver as in NVIDIA's image: a real server, from the local mode's wheel.

    Its backends for onnxruntime and pytorch are Python-based; NVIDIA's are native.
    """
    source = Path(sys.prefix) / "triton"
    target = folder / "opt/tritonserver"
    shutil.copytree(source / "backends", target / "backends")
    shutil.copytree(source / "lib", target / "lib")
    (target / "bin").mkdir()
    shutil.copy2(source / "bin/tritonserver", target / "bin")


def import_image(host: str, folder: Path, tag: str, tensorrt: str) -> None:
    """The folder as the image `tag`, with the environment of NVIDIA's."""
    changes = (
        "ENV PIP_CONSTRAINT=/etc/pip/constraint.txt",
        "ENV BASH_ENV=/etc/shinit_v2",
        "ENV TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1",
        'ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]',
        f"ENV TRT_VERSION={tensorrt}",
    )
    options = [word for change in changes for word in ("--change", change)]
    environment = os.environ | {"DOCKER_HOST": host}
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["docker", "import", *options, "-", tag],
            stdin=tar.stdout, check=True, capture_output=True, env=environment,
        )  # fmt: skip


def extend_image(host: str, base: str, folder: Path, tag: str) -> None:
    """The image `base` and the folder's files, as the image `tag`."""
    lines = f"FROM {base}\nCOPY . /\nENV LD_LIBRARY_PATH=/opt/tritonserver/lib\n"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "--file", "-", str(folder)],
        input=lines, text=True, check=True, capture_output=True,
        env=os.environ | {"DOCKER_HOST": host},
    )  # fmt: skip
