"""Holds the content of a case.toml against its declaration, and says in sentences what is wrong."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from inspect import isclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from scripts.case.forms import FORMS, AnyCase, Common
from scripts.case.limits import Says, quoted
from scripts.case.tables import MODELS, Table, Weights

CASE: TypeAdapter[Any] = TypeAdapter(AnyCase)
DATA = {"arrays": ".npy files", "images": "[images]", "csv": "[csv]"}
KINDS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
    dict: "a table", date: "a date", datetime: "a date", time: "a time of the day",
}  # fmt: skip
# What is said first of several things: a misspelt key, for one, is a missing key too.
FIRST = ("union_tag_invalid", "extra_forbidden", "missing")


def check(content: dict[str, Any]) -> Common:
    """The content, with every default filled in.

    Raises ValueError with one to three sentences on the first thing that does not fit.
    """
    try:
        case: Common = CASE.validate_python(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = min(found, key=lambda one: (*FIRST, one["type"]).index(one["type"]))
        said = str(first.get("ctx", {}).get("error", ""))
        raise ValueError(said or get_complaint(first["type"], first["loc"], content)) from None
    return case


def get_complaint(kind: str, loc: tuple[Any, ...], content: dict[str, Any]) -> str:
    """The sentence on pydantic's error of this kind at this place."""
    form, *path = loc
    if kind == "union_tag_invalid":
        return unknown_family(content["model"]["family"])
    family = path.pop(1) if path[0] == "model" and len(path) > 1 else "torch"
    spot = find(form, family, path, content)
    if kind == "extra_forbidden":
        return spot.unknown_key()
    return spot.missing_key() if kind == "missing" else spot.wrong_value()


def unknown_family(family: Any) -> str:
    if not isinstance(family, str):
        return f"'family' in [model] is {kind_of(family)}, and must be a text."
    return one_of("family", family, MODELS)


def find(form: str, family: str, path: list[Any], content: Any) -> "Spot":
    """Where a path leads: to the innermost table on it, and to the key there."""
    tables = tables_of(form, family)
    table, key = "", path[0]
    for step in path[1:]:
        below = f"{table}.{key}".lstrip(".")
        if key is not None and below not in tables:
            break  # the rest of the path is inside of a value
        if key is not None:
            table, content = below, content[key]
        if isinstance(step, int):
            key, content = None, content[step]
        else:
            key = step
    return Spot(form, family, table, key, content)


def tables_of(form: str, family: str) -> dict[str, type[Table]]:
    """The tables that such a case.toml can have, by their names; "" is the top of the file."""
    found: dict[str, type[Table]] = {"": FORMS[form]}
    for key, field in FORMS[form].model_fields.items():
        for part in parts(field):
            if isclass(part) and issubclass(part, Table):
                found[key] = part
    return found | {"model": MODELS[family], "ranking.weights": Weights}


def parts(field: FieldInfo) -> Iterator[Any]:
    """All that the declaration of a key is made of: types, allowed values, sentences."""
    stack = [*field.metadata, field.annotation]
    while stack:
        yield (part := stack.pop(0))
        stack[:0] = get_args(part)


def kinds(annotation: Any) -> list[type]:
    """The types that a value of it can have in TOML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return [kind for one in inner if one is not NoneType for kind in kinds(one)]
    if origin is Annotated:
        return kinds(inner[0])
    if origin is Literal:
        return [str]
    found = origin or annotation
    return [dict] if issubclass(found, Table) else [found]


@dataclass(frozen=True)
class Spot:
    """A key, the table that it is in, by its name, and all that is written in that table."""

    form: str
    family: str
    table: str
    key: str | None  # None: an element of [[inputs]] itself
    written: Any

    @property
    def title(self) -> str:
        return f"[{self.table}]" if self.table else "the top of the file"

    @property
    def name(self) -> str:
        """The key, and where it stands unless that is plain."""
        if self.table == "inputs":
            return f"{self.key} of {self.input}"
        return f"{self.key}" if self.table in ("", "model") else f"{self.key} in [{self.table}]"

    @property
    def input(self) -> str:
        name = self.written.get("name")
        return f"the input {quoted(name)}" if isinstance(name, str) else "an input"

    def keys(self, form: str) -> list[str]:
        """The keys that the table has in a form of the data, those that must be there first."""
        tables = tables_of(form, self.family)
        fields = tables[self.table].model_fields if self.table in tables else {}
        return sorted(fields, key=lambda key: not fields[key].is_required())

    def unknown_key(self) -> str:
        """A key that the table does not have, in this form of the data or in any."""
        everywhere = [key for form in FORMS for key in self.keys(form)]
        if self.key in everywhere:
            return self.needs(f"has no use for {self.key!r}")
        near = nearest(self.key, everywhere)
        known = ", ".join(self.keys(self.form))
        advice = f"did you mean {near[0]!r}?" if near else f"known are {known}."
        return f"unknown key {quoted(self.key)} in {self.title}; {advice}"

    def missing_key(self) -> str:
        """A key that must be there, in this form of the data or in each."""
        if all(self.key in keys for form in FORMS if (keys := self.keys(form))):
            return f"the key {self.key!r} is missing in {self.title}; `make new` shows it."
        return self.needs(f"needs {self.key!r}")

    def needs(self, what: str) -> str:
        """What the table has to hold in this form of the data."""
        keys = self.keys(self.form)
        if self.table != "inputs":
            return f"{self.title} {what} when the data is {DATA[self.form]}; it takes {', '.join(keys)}."
        listed = f"{', '.join(map(repr, keys[:-1]))} and {keys[-1]!r}"
        return (
            f"[[inputs]] {what} when the data is {DATA[self.form]}: {self.input} needs {listed}, "
            "no more."
        )

    def wrong_value(self) -> str:
        """A value of another type, out of its limits, or none of those that it can have."""
        if self.key is None:
            return f"{self.title} is {kind_of(self.written)}, and must be a table."
        field = tables_of(self.form, self.family)[self.table].model_fields[self.key]
        value, allowed = self.written[self.key], kinds(field.annotation)
        if type(value) not in (*allowed, *([int] if float in allowed else [])):
            wanted = " or ".join(KINDS[kind] for kind in allowed)
            return f"{self.key!r} in {self.title} is {kind_of(value)}, and must be {wanted}."
        said = [part.sentence for part in parts(field) if isinstance(part, Says)]
        if said:
            return said[0].format(name=self.name, key=self.key, value=quoted(value))
        known = [part for part in parts(field) if isinstance(part, str)]
        wrong = [one for one in (value if isinstance(value, list) else [value]) if one not in known]
        return one_of(self.name, wrong[0], known)


def kind_of(value: Any) -> str:
    return f"{KINDS[type(value)]} ({quoted(value)})"


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """That the value is none of those known, and which is the nearest."""
    near = nearest(value, known)
    advice = f"did you mean {near[0]!r}? Known are" if near else "known are"
    return f"{name} is {quoted(value)}; {advice} {', '.join(known)}."


def nearest(word: Any, known: Iterable[str]) -> list[str]:
    """The one nearest to the word, if any is near."""
    return difflib.get_close_matches(quoted(word).strip("'\""), known, 1, 0.5)
