"""How far each node or segment, set back to float32, moves the logits."""

from typing import Any

SHOWN = 25  # bars whose names can be read
LONGEST = 40  # characters of a name


def draw(found: dict[str, Any]) -> Any:
    """One bar for each segment, the largest mean change first; one that is not finite reaches the end."""
    from matplotlib.figure import Figure

    segments = found["segments"][:SHOWN]
    finite = [one["change_mean"] for one in segments if one["change_mean"] is not None]
    most = max(finite, default=0.0) or 1.0
    places = range(len(segments))
    figure = Figure(figsize=(11, 1.6 + 0.32 * max(1, len(segments))), layout="constrained")
    axes = figure.subplots()
    for place, one in zip(places, segments, strict=True):
        broken = one["change_mean"] is None
        length = most if broken else one["change_mean"]
        axes.barh(place, length, color="#cc3311" if broken else "#3366aa")
        words = f"{one['flips_left']} flips left" + (
            ", not finite before or after" if broken else ""
        )
        axes.annotate(words, (length, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(list(places), [label(one["nodes"]) for one in segments], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * most)  # room for the words
    axes.set(title=f"{found['variant']}: set back to float32, {len(found['samples'])} samples",
             xlabel="mean absolute change of the logit")  # fmt: skip
    return figure


def label(nodes: list[str]) -> str:
    """A segment as it fits beside its bar."""
    words = nodes[0] if len(nodes) == 1 else f"{nodes[0]} to {nodes[-1]} ({len(nodes)})"
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "\u2026"
