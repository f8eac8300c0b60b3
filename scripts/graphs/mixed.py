"""Low precision with some nodes left in float32: one way to convert, whatever the number format."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from scripts.case.read_case import Case
from scripts.data.samples import Samples

if TYPE_CHECKING:
    import onnx

Convert = Callable[[frozenset[str]], "onnx.ModelProto"]


def converter(
    precision: str, source: "onnx.ModelProto", case: Case, data: Samples
) -> tuple[list[str], Convert]:
    """(the nodes that become `precision`, float16 or int8, in graph order; how to convert with some kept).

    What needs doing once, calibration among it, is done here.
    """
    if precision == "int8":
        from scripts.graphs.int8_calibration import quantiser

        ranges, quantised = quantiser(source, case, data)
        return list(ranges.nodes), quantised
    from scripts.graphs.fp16 import candidates, convert, prepare

    prepared = prepare(source)
    return candidates(prepared), lambda keep: convert(prepared, keep)
