"""Say by hand which variant goes to production, whatever the report recommends.

Reads   nothing
Writes  promotion.json
Runs    anywhere
Usage   python3 -m scripts.release.promote_variant --variant onnx_fp16 --out results/digits/promotion.json
        (or: make promote VARIANT=onnx_fp16; VARIANT=recommended takes that back)
Prints  promoted by hand: onnx_fp16
"""

from pathlib import Path

import click

from scripts.files import write_json
from scripts.variants import VARIANTS

BACK = "recommended"


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--variant", required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(variant: str, out: Path) -> None:
    known = [one.name for one in VARIANTS if one.file is not None]
    if variant not in (*known, BACK):
        raise click.ClickException(
            f"VARIANT is {variant!r}; write one of {', '.join(known)}, or {BACK} to take a promotion "
            "back."
        )
    write_json(out, {"step": "promotion", "variant": None if variant == BACK else variant})
    click.echo(f"promoted by hand: {'none' if variant == BACK else variant}")


if __name__ == "__main__":
    main()
