"""The house: who has read one backend's folder has read all, and nobody outside asks which one it is."""

import re
from pathlib import Path

import pytest

from scripts.variants import BY_NAME, VARIANTS

SCRIPTS = Path(__file__).parents[1] / "scripts"
BACKENDS = {path.name for path in (SCRIPTS / "backends").iterdir() if (path / "rules.mk").is_file()}
# A backend, or the ending of its file, as code would ask for it: a text, an import, a part of a name.
ASKS = re.compile(
    r"""["'](?:onnxruntime|tensorrt|pytorch|torchscript|trt_|onnx_)["']|"""
    r"""startswith\(["'](?:trt|onnx|torch)|\.plan\b|scripts\.backends\.(?!__)[a-z]|"""
    r"""import (?:onnxruntime|tensorrt|torch)\b|filter (?:trt|onnx|torchscript)_"""
)
ABOVE = ("score", "triton", "repair", "release", "report")
BELOW = ("verdicts", "data", "case")


def code(path: Path) -> str:
    """Without docstrings and comments, in which a backend may be named."""
    text = re.sub(r'"""[\s\S]*?"""', "", path.read_text(encoding="utf-8"))
    return re.sub(r"(^|\s)#.*", "", text)


def test_every_backend_of_the_list_has_a_folder_and_the_other_way_round() -> None:
    assert {one.backend for one in VARIANTS if one.backend} == BACKENDS
    assert len(BACKENDS) >= 3


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_backend_s_folder_holds_what_others_ask_it_for(name: str) -> None:
    folder = SCRIPTS / "backends" / name
    assert {"open.py", "config.py", "prove.py", "rules.mk"} <= {
        one.name for one in folder.iterdir()
    }
    [variant, *_] = [one for one in VARIANTS if one.backend == name]
    assert variant.has("open") and variant.has("config")
    assert not variant.has("nothing")


@pytest.mark.parametrize("room", [*ABOVE, *BELOW])
def test_no_other_room_asks_for_a_backend_by_name(room: str) -> None:
    files = [*(SCRIPTS / room).rglob("*.py"), *(SCRIPTS / room).rglob("rules.mk")]
    assert len(files) > 3
    found = {
        f"{path.relative_to(SCRIPTS)}: {match[0]}"
        for path in files
        for match in ASKS.finditer(code(path))
    }
    assert not found


def test_neither_does_the_makefile() -> None:
    assert not ASKS.findall(code(SCRIPTS.parent / "Makefile"))


def test_what_is_looked_for_is_found_where_it_may_stand() -> None:
    text = (SCRIPTS / "variants.py").read_text()
    assert ASKS.search(text)
    for planted in ('if runtime == "tensorrt":', "import torch", "from scripts.backends.pytorch.open import x",
                    'name.startswith("trt_")', "$(filter trt_%,$(VARIANTS))", 'path = "model.plan"'):  # fmt: skip
        assert ASKS.search(planted), planted


def test_layers_and_ranges_are_of_those_that_have_them() -> None:
    assert {name for name, one in BY_NAME.items() if one.ranged} == {"onnx_fp32"}
    layered = {name for name, one in BY_NAME.items() if one.layered}
    plain = {"torch_fp32", "torchscript_fp32", "onnx_fp32"}
    assert layered == set(BY_NAME) - plain


@pytest.mark.parametrize(
    "path", [*sorted(SCRIPTS.parent.rglob("*.mk")), SCRIPTS.parent / "Makefile"]
)
def test_no_line_of_a_makefile_is_longer_than_a_screen(path: Path) -> None:
    if ".venv" in path.parts or "results" in path.parts:
        return
    long = [n for n, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not long, path
