"""An ONNX model becomes a file: written aside, checked, run, and only then renamed into place."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.case.read_case import Case
from scripts.data.samples import Batch
from scripts.graphs.session import try_model

if TYPE_CHECKING:
    import onnx

ONE_FILE_BYTES = 2_000_000_000  # a protobuf cannot exceed 2 GiB


def save(
    model: "onnx.ModelProto", out: Path, case: Case, batch: Batch, device: str = "cpu"
) -> None:
    """Write the model aside, check it in full, run it on `device`, and only then rename it into place."""
    import onnx

    data = out.with_name(out.name + ".data")
    external = sum(_bytes(tensor) for tensor in model.graph.initializer) >= ONE_FILE_BYTES
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=out.parent) as folder:
        aside = Path(folder) / out.name
        onnx.save_model(model, aside, save_as_external_data=external, location=data.name)
        try:
            onnx.checker.check_model(str(aside), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise click.ClickException(f"The ONNX checker refuses {out}: {error}") from None
        try_model(aside, case, batch, out, device)
        if external:
            (aside.parent / data.name).replace(data)
        aside.replace(out)
    if not external:
        data.unlink(missing_ok=True)


def _bytes(tensor: Any) -> int:
    return tensor.ByteSize() if not tensor.raw_data else len(tensor.raw_data)
