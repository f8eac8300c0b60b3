"""The case.toml that `make new` writes: whoever switches a line on gets something valid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from scripts.case.complaints import parts, tables_of
from scripts.case.forms import FORMS
from scripts.case.new_case import main
from scripts.case.read_case import Case, read_case
from scripts.case.rules import Rules
from scripts.case.template import get_template, is_off, toml
from scripts.variants import FAMILIES
from tests.toy_case import run, says

TOML = get_template()
RULES = TOML[TOML.index("# ---- What is asked") : TOML.index("# ---- Data, in one of")]
CODE = re.compile(r"# ?(\[[a-z]+\]|[a-z_0-9]+ = .*)")


def switched_on(text: str) -> str:
    """The lines of keys and tables, without the # in front; those of explanations stay off."""
    return "\n".join(
        match[1] if (match := CODE.fullmatch(line)) else line for line in text.splitlines()
    )


def in_form(number: int) -> str:
    """The file with one of the three forms of data switched on, the other two removed."""
    head, *forms = re.split(r"^# \d\. .*\n", TOML, flags=re.MULTILINE)
    assert len(forms) == 3
    lines = forms[number].splitlines()
    return head + "\n".join(re.sub("^# ?", "", line) if number else line for line in lines)


def declared() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every key: its table, its name, and its declaration in each form that has it."""
    for form in FORMS:
        for family in FAMILIES:
            for table, declaration in tables_of(form, family).items():
                for key, field in declaration.model_fields.items():
                    yield table, key, field


def is_table(table: str, key: str) -> bool:
    names = {name for form in FORMS for name in tables_of(form, FAMILIES[0])}
    return f"{table}.{key}".lstrip(".") in names


@pytest.mark.parametrize("name", ["1x", "my case", "é"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    says(run(main, tmp_path / name), name, "letters, digits")
    assert not list(tmp_path.iterdir())


def test_it_is_valid_as_it_is_written_and_asks_for_the_defaults(tmp_path: Path) -> None:
    done = run(main, tmp_path / "mask")
    assert done.exit_code == 0 and "make all CASE=mask" in done.output
    case = read_case(tmp_path / "mask/case.toml")
    assert case.rules == Rules() and case.family == FAMILIES[0]
    assert (case.unlabelled, case.groups, case.group_column) == (None, None, None)


@pytest.mark.parametrize("number", range(3))
def test_every_form_of_data_is_valid(tmp_path: Path, number: int) -> None:
    path = tmp_path / "case.toml"
    path.write_text(in_form(number))
    case = read_case(path)
    assert [case.labels_file is not None, case.images is not None, case.csv is not None] == [
        number == form for form in range(3)
    ]
    assert case.rules == Rules()


def test_every_rule_can_be_switched_on_and_is_shown_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    text = switched_on(RULES)
    for line in ("group_column", "weights"):
        text, number = re.subn(rf"^{line} = .*$", "", text, flags=re.MULTILINE)
        assert number == 1
    path.write_text(TOML.replace(RULES, text))
    case = read_case(path)
    assert case.rules == Rules(guarantee=0.95, latency_p99_ms=20.0, memory_mb=500.0)
    assert case.unlabelled == tmp_path / "traffic" and case.groups == tmp_path / "groups.npy"


def test_weights_can_be_switched_on_in_place_of_an_objective(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text(TOML.replace("# [ranking]", "[ranking]").replace("# weights =", "weights ="))
    assert read_case(path).rules.weights == {"latency": 0.7, "size": 0.3}


def test_every_line_of_the_model_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    start, end = TOML.index("# skip"), TOML.index("# ---- What is asked")
    path.write_text(TOML[:start] + switched_on(TOML[start:end]) + TOML[end:])
    case: Case = read_case(path)
    assert (case.skip, case.arguments) == (("onnx_fp16",), {"width": 8})
    assert (case.weights_key, case.positive_class, case.output) == ("ema", 1, 0)


def test_it_shows_every_key_of_case_toml() -> None:
    for table, key, field in declared():
        if is_table(table, key):
            assert f"[{key}]" in TOML or f"{key} = {{" in TOML, key
        elif table == "ranking.weights":
            assert f'"{key}"' in TOML, key
        else:
            assert re.search(rf"^(# )?{key} = ", TOML, re.MULTILINE), (table, key, field)


def test_it_shows_of_a_key_its_default() -> None:
    shown = [
        (key, toml(field.default))
        for table, key, field in declared()
        if not (is_table(table, key) or table == "ranking.weights" or is_off(field))
        and not field.is_required()
    ]
    assert len(set(shown)) == 12
    for key, value in shown:
        assert re.search(rf"^(# )?{key} = {re.escape(value)}( |$)", TOML, re.MULTILINE), key


def test_it_names_every_value_that_a_key_can_have() -> None:
    for _, key, field in declared():
        if key != "skip":
            for value in (part for part in parts(field) if isinstance(part, str)):
                assert re.search(rf"\b{value}\b", TOML), (key, value)


def test_every_key_is_explained() -> None:
    for table, key, field in declared():
        assert field.description or is_table(table, key), (table, key)


def test_its_lines_are_short_and_the_comments_of_a_table_stand_below_each_other() -> None:
    lines = TOML.splitlines()
    assert max(map(len, lines)) <= 100 and lines == [line.rstrip() for line in lines]
    columns: set[int] = set()
    for line in lines:
        if re.fullmatch(r"(# ?)?(\[.*\])?", line):  # between two tables
            columns.clear()
        elif re.match(r"(# )?[a-z_0-9]+ = .* # |  +# ", line):
            columns.add(line.index("# ", 3))
            assert len(columns) == 1, line


def test_its_first_line_leads_editors_to_the_schema(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    first = TOML.splitlines()[0]
    assert first.startswith("#:schema ")
    schema = root / "data/mask" / first.removeprefix("#:schema ")
    assert schema.resolve() == root / "docs/case.schema.json"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (0.5, "0.5"), ("a", '"a"'), ([1, "b"], '[1, "b"]'), ({"c": 1}, "{ c = 1 }")],
)
def test_values_are_written_as_toml_writes_them(value: Any, text: str) -> None:
    assert toml(value) == text
