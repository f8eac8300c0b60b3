"""Write the JSON Schema of case.toml, from its declaration, for editors and for programs.

Reads   nothing
Writes  the schema; editors find it by the first line of the case.toml that `make new` writes
Runs    on the CPU
Usage   python3 -m scripts.case.write_schema --out docs/case.schema.json
Prints  docs/case.schema.json: the keys of case.toml
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from scripts.files import writing


@click.command(help=__doc__.splitlines()[0] if __doc__ else None)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(out: Path) -> None:
    with writing(out) as temporary:
        temporary.write_text(get_text(), encoding="utf-8")
    click.echo(f"{out}: the keys of case.toml")


def get_text() -> str:
    return json.dumps(get_schema(), indent=1, ensure_ascii=False) + "\n"


def get_schema() -> dict[str, Any]:
    """What case.toml may hold. read_case refuses more: what no schema can say, such as NaN."""
    from pydantic import TypeAdapter

    from scripts.case.forms import FORMS, AnyCase
    from scripts.case.tables import MODELS

    tables = TypeAdapter(AnyCase).json_schema()["$defs"]
    model = choose(
        MODELS, lambda family: {"properties": {"family": {"const": family}}, "required": ["family"]}
    )
    for form in FORMS.values():
        tables[form.__name__]["properties"]["model"] = model
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://verdict.invalid/case.schema.json",
        "title": "case.toml of Verdict",
        "description": "One trained model with its test data, and what is asked of its verdicts.",
        "type": "object",
        **choose(FORMS, lambda form: {"required": [form]}),
        "$defs": {name: tidied(table) for name, table in tables.items()},
    }


def choose(tables: Mapping[str, type], when: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """The first of the tables, unless the condition of another holds.

    Of pydantic's oneOf an editor would say, at every line, that nothing fits. What it offers to write
    it takes from an anyOf, which refuses nothing here.
    """
    refs = {name: {"$ref": f"#/$defs/{table.__name__}"} for name, table in tables.items()}
    first, *others = refs
    result: dict[str, Any] = refs[first]
    for name in others:
        result = {"if": when(name), "then": refs[name], "else": result}
    return result | ({"anyOf": [*refs.values(), True]} if others else {})


def tidied(table: dict[str, Any]) -> dict[str, Any]:
    """A table without what says nothing to a reader: titles, and null, which TOML does not have."""
    return table | {"properties": {name: _key(key) for name, key in table["properties"].items()}}


def _key(key: dict[str, Any]) -> dict[str, Any]:
    options = [one for one in key.get("anyOf", []) if one != {"type": "null"}]
    kept = {
        name: value
        for name, value in key.items()
        if name not in ("title", "anyOf") and not (name == "default" and value is None)
    }
    if len(options) == 1:
        return options[0] | kept
    return kept | ({"anyOf": options} if options else {})


if __name__ == "__main__":
    main()
