"""The case.toml that `make new` writes: whoever switches a line on gets something valid."""

import re
from pathlib import Path

import pytest

from scripts.case.keys import KEYS
from scripts.case.new_case import TOML, main
from scripts.case.read_case import read_case
from scripts.case.rules import Rules
from tests.toy_case import run, says

RULES = TOML[TOML.index("# ---- What is asked") : TOML.index("# ---- Data, in one of")]
CODE = re.compile(r"# ?(\[[a-z]+\]|[a-z_0-9]+ = .*)")


def switched_on(text: str) -> str:
    """The lines of keys and tables, without the # in front; those of explanations stay off."""
    return "\n".join(
        match[1] if (match := CODE.fullmatch(line)) else line for line in text.splitlines()
    )


@pytest.mark.parametrize("name", ["1x", "my case", "é"])
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    says(run(main, tmp_path / name), name, "letters, digits")
    assert not list(tmp_path.iterdir())


def test_it_is_valid_as_it_is_written_and_asks_for_the_defaults(tmp_path: Path) -> None:
    done = run(main, tmp_path / "mask")
    assert done.exit_code == 0 and "make all CASE=mask" in done.output
    case = read_case(tmp_path / "mask/case.toml")
    assert case.rules == Rules()
    assert (case.unlabelled, case.groups, case.group_column) == (None, None, None)


def test_every_rule_can_be_switched_on_and_is_shown_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    text = switched_on(RULES).replace('group_column = "patient"', "")
    without = text.replace("weights = { latency = 0.7, size = 0.3 }", "")
    path.write_text(TOML.replace(RULES, without))
    case = read_case(path)
    assert case.rules == Rules(guarantee=0.95, latency_p99_ms=20.0, memory_mb=500.0)
    assert case.unlabelled == tmp_path / "traffic" and case.groups == tmp_path / "groups.npy"
    path.write_text(TOML.replace(RULES, text.replace('objective = "latency"', "#")))
    assert read_case(path).rules.weights == {"latency": 0.7, "size": 0.3}


@pytest.mark.parametrize("table", KEYS)
def test_it_explains_every_key_of_case_toml(table: str) -> None:
    for key in KEYS[table]:
        assert re.search(rf"(^|[\s{{\[\"]){key}(\"| =|\]|,| \"|$)", TOML, re.MULTILINE), key
