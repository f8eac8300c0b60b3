"""Whatever stands in case.toml: it is read, or refused in one to three sentences."""

import re
from pathlib import Path

import click
import pytest

from scripts.case.forms import FORMS
from scripts.case.read_case import Case, read_case
from tests.case.test_new_case import in_form, switched_on
from tests.toy_case import SLIP, TOML, Toy, says

ODD = [
    "true", "0", "-1", "1.5", "-0.0", "nan", "-inf", "1e400", "9" * 400, "9" * 5000, "0x" + "f" * 5000,
    '""', '"a"', '"\\u0000"', f'"{"a. " * 900}"', "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00",
    "[]", "[[]]", "[nan, {}]", '["a", 1]', "[1979-05-27]", f"[{'0x' + 'f' * 5000}]", "{}",
    "{ '' = 1 }", '{ name = "x", "{value}" = [{}] }', "[{}]", "[[1, 2], [3, 4]]",
    "[" * 60 + "]" * 60, "[" * 5000 + "]" * 5000,
]  # fmt: skip
WORDS = re.compile(r"pydantic|Input should|Value error|validation|Traceback|<class|Exceeds", re.I)


def read(path: Path, text: str) -> Case | str:
    """The case, or the sentences that refuse it."""
    path.write_text(text, encoding="utf-8")
    try:
        return read_case(path)
    except click.ClickException as error:
        said = error.message
    assert said.startswith(str(path)) and "\n" not in said
    assert not WORDS.search(said), said
    assert not SLIP.search(said.replace("a. ", "")), said
    assert len(re.findall(r"[.?] [A-Z]", said.replace("a. ", ""))) < 3 and len(said) < 800, said
    return said


def everything(number: int) -> str:
    """A case.toml with every key that goes with a form of the data."""
    text = switched_on(in_form(number))
    drop = ["objective", "groups" if number == 2 else "group_column"]
    return re.sub(rf"^({'|'.join(drop)}) = .*\n", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_a_file_with_every_key_is_read(tmp_path: Path, number: int) -> None:
    assert isinstance(read(tmp_path / "case.toml", everything(number)), Case)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("number", range(len(FORMS)))
def test_any_value_of_any_key(tmp_path: Path, number: int, odd: str) -> None:
    text = everything(number)
    keys = list(re.finditer(r"^[a-z_0-9]+ = (.*?)( +# .*)?$", text, re.MULTILINE))
    assert len(keys) > 25
    refused = [
        read(tmp_path / "case.toml", text[: key.start(1)] + odd + text[key.end(1) :])
        for key in keys
    ]
    assert any(isinstance(one, str) for one in refused)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("number", range(len(FORMS)))
def test_any_value_in_place_of_a_table(tmp_path: Path, number: int, odd: str) -> None:
    text = everything(number)
    names = re.findall(r"^\[+([a-z]+)\]+$", text, re.MULTILINE)
    assert len(names) >= 7
    for name in names:
        rest = re.sub(rf"^\[+{name}\]+\n([^\[].*\n|\n)*", "", text, flags=re.MULTILINE)
        said = read(tmp_path / "case.toml", f"{name} = {odd}\n{rest}")
        assert isinstance(said, str) or odd == "{}", (name, said)


@pytest.mark.parametrize("key", ["''", "'a b'", "'{value}'", "model.x", "'model.torch'", "0", "é"])
@pytest.mark.parametrize("table", ["", "[model]", "[[inputs]]", "[labels]", "[ranking.weights]"])
def test_any_key_in_any_table(tmp_path: Path, table: str, key: str) -> None:
    text = TOML + "[ranking.weights]\nsize = 1\n"
    said = read(tmp_path / "case.toml", text.replace(f"{table}\n", f"{table}\n{key} = 1\n", 1))
    assert isinstance(said, str) and re.search("unknown key|not valid TOML", said)


def test_a_date_is_called_a_date(read_toy: Toy) -> None:
    read_toy.change("max_batch = 4", "max_batch = 2026-01-31")
    read_toy.refuses(
        read_toy.read, "'max_batch' in [model] is a date (2026-01-31)", "must be a whole number"
    )


def test_a_long_value_is_not_quoted_to_its_end(read_toy: Toy) -> None:
    read_toy.change("max_batch = 4", f"max_batch = {'[1, ' * 30}{', '.join('1' * 900)}{']' * 30}")
    assert len(read_toy.refuses(read_toy.read, "a list ([1, [1,", "must be a whole number")) < 400


@pytest.mark.parametrize(
    ("value", "words"),
    [("[" * 5000 + "]" * 5000, "nested too deeply"), ("0x" + "f" * 5000, "digits")],
)
def test_what_python_cannot_hold_is_refused(read_toy: Toy, value: str, words: str) -> None:
    read_toy.change("max_batch = 4", f"max_batch = {value}")
    read_toy.refuses(read_toy.read, read_toy.toml, "cannot be read", words)


def test_an_input_without_a_name_is_refused_for_what_it_has_too_much(read_toy: Toy) -> None:
    read_toy.change('name = "x"', "columns = []")
    read_toy.refuses(read_toy.read, "no use for 'columns'", "an input needs 'name'")


def test_a_folder_in_place_of_the_file_is_refused(read_toy: Toy) -> None:
    read_toy.toml.unlink()
    read_toy.toml.mkdir()
    says(read_toy.read(), read_toy.toml, "cannot be read")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"tortch"', ["family is 'tortch'; did you mean 'torch'? Known are torch."]),
        ('"xgboost"', ["family is 'xgboost'; known are torch."]),
        ("3", ["'family' in [model] is a whole number (3), and must be a text."]),
        ('["torch"]', ["'family' in [model] is a list (['torch']), and must be a text."]),
    ],
)
def test_an_unknown_family_is_quoted_with_those_known(
    read_toy: Toy, value: str, words: list[str]
) -> None:
    """It comes first: the keys of another family would each be unknown."""
    read_toy.change("[model]", f"[model]\nfamily = {value}\nbooster = 1")
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


@pytest.mark.parametrize("line", ["", 'family = "torch"'])
def test_the_family_is_torch_unless_it_is_said(toy: Toy, line: str) -> None:
    toy.change("[model]", f"[model]\n{line}")
    assert read_case(toy.toml).family == "torch"


def test_the_families_are_those_of_the_list_of_variants() -> None:
    from scripts.case.tables import MODELS
    from scripts.variants import FAMILIES

    assert tuple(MODELS) == FAMILIES


def test_nothing_of_pydantic_is_needed_to_name_a_case() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from scripts.case.read_case import Case; from scripts.case.rules import Rules;"
        "from scripts.case.keys import DTYPES; print([m for m in sys.modules if 'pydantic' in m])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
