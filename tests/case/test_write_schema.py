"""docs/case.schema.json: what the declaration gives, valid, and of one mind with read_case."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scripts.case.complaints import check, tables_of
from scripts.case.forms import FORMS
from scripts.case.write_schema import choose, get_text, main
from scripts.variants import FAMILIES
from tests.case.test_case import csv_toml, images_toml
from tests.case.test_new_case import in_form
from tests.toy_case import TOML, run

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs/case.schema.json"
SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BUNDLED = [ROOT / "data/digits/case.toml", *sorted(ROOT.glob("tests/cases/*/case.toml"))]


def content(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:
        import tomli as tomllib
    return tomllib.loads(text)


def test_the_committed_file_is_what_the_declaration_gives(tmp_path: Path) -> None:
    out = tmp_path / "case.schema.json"
    assert run(main, "--out", out).exit_code == 0
    text = out.read_text(encoding="utf-8")
    assert text == get_text()
    assert text == PATH.read_text(encoding="utf-8"), (
        "run: python3 -m scripts.case.write_schema --out docs/case.schema.json"
    )


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_it_accepts_the_bundled_cases(path: Path) -> None:
    assert len(BUNDLED) == 4
    VALIDATOR.validate(content(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("text", [*map(in_form, range(3)), TOML, images_toml(), csv_toml()])
def test_it_accepts_every_form_of_data(text: str) -> None:
    VALIDATOR.validate(content(text))


@pytest.mark.parametrize(
    ("old", "new", "where", "word"),
    [
        ("precision = 0.9", "presicion = 0.9", "", "presicion"),
        ("precision = 0.9", "precision = 0", "precision", "0"),
        ("precision = 0.9", 'skip = ["onnx_fp61"]', "skip/0", "onnx_fp61"),
        ("max_batch = 4", 'max_batch = "4"', "model/max_batch", "integer"),
        ("max_batch = 4", "max_batch = 0", "model/max_batch", "minimum"),
        ("max_batch = 4", "", "model", "max_batch"),
        ("max_batch = 4", 'max_batch = 4\nfamily = "forest"', "model/family", "torch"),
        ('"logit"', '"sigmoid"', "model/head", "sigmoid"),
        ('"weights.pth"', '"my weights.pth"', "model/weights", "my weights"),
        ('dtype = "float32"', 'dtype = "float64"', "inputs/0/dtype", "float64"),
        ('dtype = "float32"', 'dtype = "bool"\ncolumns = ["a"]', "inputs/0", "columns"),
        ("shape = [2]", "shape = [0]", "inputs/0/shape/0", "0"),
        ('file = "labels.npy"', 'column = "a"', "labels", "column"),
        ("positive = 1", "positive = true", "labels/positive", "True"),
        ("positive = 1", "positive = 1\n[gates]\nflip_rate = 1", "gates/flip_rate", "1"),
        ("positive = 1", "positive = 1\n[gates]\nflips = 0", "gates", "flips"),
        ("positive = 1", "positive = 1\n[data]\ngroup_column = 'a'", "data", "group_column"),
        ("positive = 1", "positive = 1\n[ranking.weights]\nspeed = 1", "ranking/weights", "speed"),
        ("[labels]", "[csv]\nfile = 'a.csv'\n[labels]", "inputs/0", "columns"),
        ("[labels]", "[images]\nfolder = 'a'\nmode = 'cmyk'\n[labels]", "images/mode", "cmyk"),
    ],
)
def test_it_refuses_what_read_case_refuses_at_the_place(
    old: str, new: str, where: str, word: str
) -> None:
    assert TOML.count(old) == 1
    wrong = content(TOML.replace(old, new))
    found = [("/".join(map(str, e.absolute_path)), e.message) for e in VALIDATOR.iter_errors(wrong)]
    assert any(place == where and word in message for place, message in found), found
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        check(wrong)


def test_no_table_takes_a_key_that_is_not_declared() -> None:
    declared = {table.__name__ for form in FORMS for table in tables_of(form, FAMILIES[0]).values()}
    assert declared == set(SCHEMA["$defs"])
    for name, table in SCHEMA["$defs"].items():
        assert table["additionalProperties"] is False, name


def test_it_speaks_of_nothing_that_toml_does_not_have() -> None:
    assert "null" not in PATH.read_text(encoding="utf-8")


def test_of_several_tables_the_condition_decides() -> None:
    class A: ...

    class B: ...

    assert choose({"a": A}, lambda one: {"required": [one]}) == {"$ref": "#/$defs/A"}
    schema = choose({"a": A, "b": B}, lambda one: {"required": [one]})
    tables = {"A": {"properties": {"b": False}}, "B": {"properties": {"b": {"const": 1}}}}
    for value, good in (({}, True), ({"b": 1}, True), ({"b": 2}, False)):
        valid = jsonschema.Draft202012Validator(schema | {"$defs": tables}).is_valid(value)
        assert valid is good, value
