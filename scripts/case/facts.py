"""What Make itself reads of case.toml, line by line, must look as its sed expects."""

import re
from typing import Any

from scripts.case.limits import ON_A_LINE, quoted


def check_facts(text: str, content: dict[str, Any]) -> None:
    """Make reads four keys line by line, before anything is installed: they have to look so."""
    _check_line(text, "family", content["model"].get("family"), "model")
    _check_line(text, "weights", content["model"]["weights"], "model")
    _check_line(text, "unlabelled", content.get("data", {}).get("unlabelled"), "data")
    skip = content.get("skip", [])
    lines = re.findall(r"""^[ \t]*skip[ \t]*=[ \t]*\[([^]]*)\]""", text, re.MULTILINE)
    listed = re.sub(r"""["',]""", " ", lines[0]).split() if len(lines) == 1 else []
    if skip and (listed != skip or "\n" in lines[0]):
        raise ValueError(
            f"skip is {quoted(skip)}; write it once, as skip = [...] on a single line."
        )


def _check_line(text: str, key: str, value: str | None, where: str) -> None:
    found = re.findall(rf"""^[ \t]*{key}[ \t]*=[ \t]*["']([^"']+)["']""", text, re.MULTILINE)
    if value is None and found:
        raise ValueError(
            f"{key} = {quoted(found[0])} stands outside of [{where}]; it belongs there."
        )
    if value is not None and found != [value]:
        raise ValueError(ON_A_LINE.format(key=key, value=quoted(value)))
