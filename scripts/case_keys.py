"""The keys of case.toml, their types, and the complaints about what does not fit them."""

import difflib
import re
from typing import Any

DTYPES = ("float32", "float16", "uint8", "int32", "int64", "bool")
HEADS = ("logit", "two_logits", "multiclass", "probability")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

TEXT, WHOLE, NUMBER, LIST, TABLE = (str,), (int,), (int, float), (list,), (dict,)
# table -> key -> (types it may have, whether it must be there)
KEYS: dict[str, dict[str, tuple[tuple[type, ...], bool]]] = {
    "": {
        "precision": (NUMBER, False), "skip": (LIST, False), "model": (TABLE, True),
        "inputs": (LIST, True), "labels": (TABLE, True), "images": (TABLE, False),
        "csv": (TABLE, False),
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
        elif not isinstance(table[key], types) or isinstance(table[key], bool):
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
