"""Serve one variant with Triton until it is ended: the server beside which a client measures.

Reads   model_repository/
Writes  the server's log
Runs    in the tritonserver container; ends with the container, or with Ctrl-C
Usage   python3 -m scripts.triton.serve_variant digits --variant onnx_fp32 --repository model_repository \\
            --log results/digits/onnx_fp32.perf.log --ports 8000 8001 8002
Prints  ready: digits_onnx_fp32
"""

from pathlib import Path

import click

from scripts.triton.score_served import SERVED
from scripts.triton.server import running_server


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.argument("case")
@click.option("--variant", required=True, type=click.Choice(SERVED))
@click.option("--repository", required=True, type=click.Path(path_type=Path))
@click.option("--log", required=True, type=click.Path(path_type=Path))
@click.option("--ports", required=True, nargs=3, type=int, help="HTTP, gRPC, metrics.")
def main(case: str, variant: str, repository: Path, log: Path, ports: tuple[int, int, int]) -> None:
    model = f"{case}_{variant}"
    try:
        with running_server(repository, [model], log, ports) as server:
            click.echo(f"ready: {model}")
            server.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")


if __name__ == "__main__":
    main()
