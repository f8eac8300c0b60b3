"""Serve the production model with Triton, in the foreground, on this machine only.

Reads   model_repository/, request.json
Writes  nothing but its log
Runs    in the tritonserver container, or with the server that local mode sets up; Ctrl-C ends it
Usage   python3 -m scripts.triton.serve_models digits --repository model_repository --models production \
            --request results/digits/request.json --log results/digits/server.log \
            --ports 8000 8001 8002
        (or: make serve; SERVE=all adds the candidates, HTTP_PORT=... chooses another port)
Prints  the URLs and a request to paste
"""

import sys
from pathlib import Path

import click

from scripts.files import read_json
from scripts.triton.production import current, names
from scripts.triton.server import Server, running_server


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case")
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--models", required=True, type=click.Choice(["production", "all"]))
@click.option("--request", required=True, type=click.Path(path_type=Path))
@click.option("--log", required=True, type=click.Path(path_type=Path))
@click.option("--ports", required=True, nargs=3, type=int, help="HTTP, gRPC, metrics.")
def main(
    case: str, repository: Path, models: str, request: Path, log: Path, ports: tuple[int, int, int]
) -> None:
    version = current(repository / case)
    wanted = list(names(case)) + (candidates(repository, case) if models == "all" else [])
    try:
        with running_server(repository, wanted, log, ports) as server:
            click.echo(get_text(server, case, version, wanted, request))
            server.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")


def candidates(repository: Path, case: str) -> list[str]:
    """The models of the variants: <case>_<variant>, where they are whole."""
    from scripts.variants import VARIANTS

    found = [f"{case}_{one.name}" for one in VARIANTS if one.file is not None]
    return [name for name in found if (repository / name / "config.pbtxt").is_file()]


def get_text(server: Server, case: str, version: int, models: list[str], request: Path) -> str:
    """What the user needs: where it answers, and a request to paste, for curl and for Python."""
    http, model = f"http://{server.http}", f"{case}_verdict"
    kind = "native backends" if server.native else "Python-based backends"
    curl = f"curl -s {http}/v2/models/{model}/infer -d @{request}"
    if any(one["datatype"] == "FP16" for one in read_json(request)["inputs"]):
        curl = "(not with curl: Triton's JSON form does not carry float16)"
    return f"""\
Triton {server.version} serves {", ".join(models)} (version {version}, {kind}).
  HTTP     {http}
  gRPC     {server.grpc}
  metrics  http://{server.metrics}/metrics
Ask for the verdict on the first sample in another terminal:

{curl}

or with tritonclient:

{"python3" if server.native else sys.executable} - <<'END'
import json, numpy, tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype
inputs = []
for one in json.load(open("{request}"))["inputs"]:
    array = numpy.array(one["data"], triton_to_np_dtype(one["datatype"])).reshape(one["shape"])
    inputs.append(triton.InferInput(one["name"], one["shape"], one["datatype"]))
    inputs[-1].set_data_from_numpy(array)
answer = triton.InferenceServerClient("{server.http}").infer("{model}", inputs)
print({{name: answer.as_numpy(name).item() for name in ("logit", "verdict", "threshold")}})
END

Ctrl-C ends the server."""


if __name__ == "__main__":
    main()
