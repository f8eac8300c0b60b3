"""The error and the magnitude of every inner tensor, in graph order."""

from typing import Any

NAMED = 40  # tensors whose names still fit on the axis
TINY = 1e-9  # an error of 0, on the logarithmic axis


def draw(found: dict[str, Any]) -> Any:
    """Two panels over the tensors in graph order: relative error; largest magnitude."""
    from matplotlib.figure import Figure

    tensors = found["tensors"]
    places = range(len(tensors))
    names = [one["name"] for one in tensors]
    nodes = [one["node"] for one in tensors]
    errors = [one["relative_error"] for one in tensors]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(places, [TINY if e is None else max(e, TINY) for e in errors], ".-", color="#3366aa")
    broken = [i for i in places if errors[i] is None]
    if broken:
        above.plot(broken, [1.0] * len(broken), "x", color="#cc3311", label="not finite")
    if found["first_jump"] is not None:
        at = names.index(found["first_jump"])
        above.axvline(at, color="#cc3311", linewidth=0.8, label=f"first jump: {nodes[at]}")
    above.set(title=f"{found['variant']} against {found['source']}, {len(found['samples'])} samples",
              ylabel="relative error", yscale="log")  # fmt: skip
    below.plot(places, [max(one["magnitude"], TINY) for one in tensors], ".-", color="#ee7733")
    below.axhline(65504, color="#cc3311", linewidth=0.8, label="largest float16")
    below.axhline(65504 / 2, color="#cc3311", linewidth=0.8, linestyle=":", label="half of it")
    below.set(
        ylabel="largest magnitude in float32", yscale="log", xlabel="ONNX nodes in graph order"
    )
    if len(tensors) <= NAMED:
        below.set_xticks(list(places), nodes, rotation=60, ha="right", fontsize=8)
    for axes in (above, below):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=8)
    return figure
