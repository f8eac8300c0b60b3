"""The keys of case.toml, their types, and the complaints about what does not fit them."""

import difflib
import math
import re
from pathlib import Path
from typing import Any

DTYPES = ("float32", "float16", "uint8", "int32", "int64", "bool")
HEADS = ("logit", "two_logits", "multiclass", "probability")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
PLAIN = re.compile(r"[A-Za-z0-9._/-]+")

TEXT, WHOLE, NUMBER, LIST, TABLE = (str,), (int,), (int, float), (list,), (dict,)
TRUTH = (bool,)
# table -> key -> (types it may have, whether it must be there)
KEYS: dict[str, dict[str, tuple[tuple[type, ...], bool]]] = {
    "": {
        "precision": (NUMBER, False), "skip": (LIST, False), "model": (TABLE, True),
        "inputs": (LIST, True), "labels": (TABLE, True), "images": (TABLE, False),
        "csv": (TABLE, False), "data": (TABLE, False), "threshold": (TABLE, False),
        "gates": (TABLE, False), "ranking": (TABLE, False),
    },
    "model": {
        "factory": (TEXT, True), "weights": (TEXT, True), "weights_key": (TEXT, False),
        "arguments": (TABLE, False), "head": (TEXT, True), "positive_class": (WHOLE, False),
        "output": ((int, str), False), "max_batch": (WHOLE, True),
    },
    "inputs": {
        "name": (TEXT, True), "shape": (LIST, True), "dtype": (TEXT, True),
        "file": (TEXT, False), "columns": (LIST, False),
    },
    "labels": {
        "positive": ((int, str), False), "negative": ((int, str), False),
        "file": (TEXT, False), "column": (TEXT, False),
    },
    "images": {
        "folder": (TEXT, True), "mode": (TEXT, True), "resize": ((int, list), False),
        "centre_crop": ((int, list), False), "interpolation": (TEXT, False),
        "divide_by": (NUMBER, False), "mean": (LIST, False), "std": (LIST, False),
        "layout": (TEXT, False),
    },
    "csv": {"file": (TEXT, True)},
    "data": {
        "unlabelled": (TEXT, False), "groups": (TEXT, False), "group_column": (TEXT, False),
    },
    "threshold": {
        "policy": (TEXT, False), "recall_slack": (NUMBER, False), "guarantee": (NUMBER, False),
    },
    "gates": {
        "flip_rate": (NUMBER, False), "confidence": (NUMBER, False), "zero_flips": (TRUTH, False),
        "precision_slack": (NUMBER, False), "latency_p99_ms": (NUMBER, False),
        "memory_mb": (NUMBER, False),
    },
    "ranking": {"objective": (TEXT, False), "weights": (TABLE, False)},
    "ranking.weights": {
        "latency": (NUMBER, False), "throughput": (NUMBER, False), "memory": (NUMBER, False),
        "size": (NUMBER, False),
    },
}  # fmt: skip


def check(table: Any, where: str) -> None:
    """Unknown keys first (with the nearest known one), then missing ones, then types."""
    title = f"[{where}]" if where else "the top of the file"
    known = KEYS[where]
    if not isinstance(table, dict):
        raise ValueError(f"{title} is {_kind(table)}, and must be a table.")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
            raise ValueError(f"unknown key {key!r} in {title}; {advice}")
    for key, (types, required) in known.items():
        if key not in table:
            if required:
                raise ValueError(f"the key {key!r} is missing in {title}; `make new` shows it.")
        elif not isinstance(table[key], types) or isinstance(table[key], bool) != (types == TRUTH):
            named = (float,) if types == NUMBER else types
            wanted = " or ".join(_KINDS[kind] for kind in named)
            raise ValueError(f"{key!r} in {title} is {_kind(table[key])}, and must be {wanted}.")


_KINDS = {str: "a text", int: "a whole number", float: "a number", list: "a list",
          dict: "a table", bool: "true or false"}  # fmt: skip


def _kind(value: Any) -> str:
    return f"{_KINDS.get(type(value), type(value).__name__)} ({value!r})"


def one_of(key: str, value: Any, known: tuple[str, ...] | list[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, 1, 0.5)
        advice = f"did you mean {near[0]!r}? Known are" if near else "known are"
        raise ValueError(f"{key} is {value!r}; {advice} {', '.join(known)}.")


def check_facts(text: str, content: dict[str, Any]) -> None:
    """Make reads three keys line by line, before anything is installed: they have to look so."""
    _check_line(text, "weights", content["model"]["weights"], "model")
    _check_line(text, "unlabelled", content.get("data", {}).get("unlabelled"), "data")
    skip = content.get("skip", [])
    lines = re.findall(r"""^[ \t]*skip[ \t]*=[ \t]*\[([^]]*)\]""", text, re.MULTILINE)
    listed = re.sub(r"""["',]""", " ", lines[0]).split() if len(lines) == 1 else []
    if skip and (listed != skip or "\n" in lines[0]):
        raise ValueError(f"skip is {skip!r}; write it once, as skip = [...] on a single line.")


def _check_line(text: str, key: str, value: str | None, where: str) -> None:
    found = re.findall(rf"""^[ \t]*{key}[ \t]*=[ \t]*["']([^"']+)["']""", text, re.MULTILINE)
    if value is None and found:
        raise ValueError(f"{key} = {found[0]!r} stands outside of [{where}]; it belongs there.")
    if value is not None and (found != [value] or not PLAIN.fullmatch(value)):
        raise ValueError(
            f'{key} is {value!r}; write it once, as {key} = "..." on a line of its own, with '
            "a file name of letters, digits and ._-/ (a link will do)."
        )


def inside(path: Path, name: str) -> Path:
    """A path of case.toml. It stays in the case's folder, which is what containers see."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(
            f"the path {name!r} leaves the folder {path.parent}; put the file there, or a link to it."
        )
    return path.parent / name


def whole_numbers(key: str, values: Any) -> tuple[int, ...]:
    """Raise ValueError unless all are whole numbers above 0."""
    good = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
    if not good:
        raise ValueError(f"{key} is {values!r}; it must be whole numbers above 0.")
    return tuple(values)


def is_finite(value: Any) -> bool:
    """Whether it is a number, and one that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
