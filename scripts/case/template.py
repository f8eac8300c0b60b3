"""The commented case.toml that `make new` writes, from the declaration of its tables and keys."""

import json
from collections.abc import Collection, Iterator, Mapping
from textwrap import wrap
from typing import Any

from pydantic.fields import FieldInfo

from scripts.case.complaints import tables_of
from scripts.case.data_tables import CsvData, Data
from scripts.case.forms import FORMS, INPUTS

Keys = Mapping[str, FieldInfo]
WIDTH, COLUMN = 100, 28  # of a line; where its comment begins, unless a key reaches further
HEAD = """\
#:schema ../../docs/case.schema.json
# What Verdict has to know of this model and its test data. Lines that begin with # are off.
# Every path is relative to this folder and stays inside it; a link to a file elsewhere will do.
"""


def get_template() -> str:
    """A case.toml with every key, its default or an example, and what it means."""
    tables = {name: table.model_fields for name, table in tables_of("arrays", "torch").items()}
    asked = {name: tables[name] for name in ("threshold", "gates", "ranking")}
    asked["data"] = {**Data.model_fields, **CsvData.model_fields}
    lines = [HEAD, *key_lines({key: tables[""][key] for key in ("precision", "skip")}), ""]
    lines += ["[model]", *key_lines(tables["model"]), ""]
    lines += [ruler("What is asked of the verdicts, with the defaults"), ""]
    for name, keys in asked.items():
        lines += [f"# [{name}]", *key_lines(keys, "# "), ""]
    lines += [ruler("Data, in one of three forms; remove the other two"), ""]
    lines += [*wrap(INPUTS, WIDTH, initial_indent="# ", subsequent_indent="# "), "", *form_lines()]
    return "\n".join(lines)


def ruler(title: str) -> str:
    return f"# ---- {title} ".ljust(WIDTH, "-")


def form_lines() -> Iterator[str]:
    """The tables of each form of the data, all but the first switched off.

    What an earlier form has explained is neither explained again nor, where it may be absent, shown.
    """
    told: set[tuple[str, str, str | None]] = set()
    for number, (form, top) in enumerate(FORMS.items(), 1):
        off = "# " if number > 1 else ""
        yield f"# {number}. {top.__doc__}"
        for name, table in tables_of(form, "torch").items():
            if name in ("images", "csv", "inputs", "labels"):
                ids = {key: (name, key, one.description) for key, one in table.model_fields.items()}
                known = [key for key in ids if ids[key] in told]
                keys = {key: one for key, one in table.model_fields.items()
                        if key not in known or not is_off(one)}  # fmt: skip
                yield f"{off}[[{name}]]" if name == "inputs" else f"{off}[{name}]"
                yield from key_lines(keys, off, known)
                yield off.strip() if name != "labels" else ""
                told |= set(ids.values())


def is_off(field: FieldInfo) -> bool:
    """Whether the default is that the key is not there."""
    return not field.is_required() and field.default in (None, [], {})


def key_lines(keys: Keys, off: str = "", known: Collection[str] = ()) -> Iterator[str]:
    """A line for each key, with its comment beside it unless known, and below it where it is long."""
    texts = {key: f"{off or '# ' * is_off(one)}{key} = {shown(one)}" for key, one in keys.items()}
    told = [key for key in keys if key not in known]
    column = max([COLUMN, *(len(texts[key]) + 1 for key in told)])
    for key, text in texts.items():
        lines = (keys[key].description or "").split("\n") if key in told else []
        comments = [part for line in lines for part in wrap(line, WIDTH - column - 2)]
        yield f"{text:<{column}}# {comments[0]}" if comments else text
        yield from (f"{'':<{column}}# {comment}" for comment in comments[1:])


def shown(field: FieldInfo) -> str:
    return toml(field.examples[0] if field.examples else field.default)


def toml(value: Any) -> str:
    """The value as TOML writes it: a text, a number, a list, an inline table, true or false."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value)
