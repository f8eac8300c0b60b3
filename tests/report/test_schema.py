"""docs/report.schema.json: real reports are valid by it, spoiled ones are not, and all is described."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from scripts.case.rules import OBJECTIVES, POLICIES
from scripts.release import gates
from scripts.release.conclude import CLAIMS, LOAD, REPAIR, SCHEMA
from scripts.triton.measure_served import best
from scripts.variants import BY_NAME, REFERENCES
from scripts.verdicts import state_claims
from tests.release.test_conclude import (  # noqa: F401
    TOML,
    R,
    finished,
    project,
    report_of,
    shipped,
    step,
)
from tests.report.test_report import GOLDEN

Schema = dict[str, Any]
TEXT = (Path(__file__).parents[2] / "docs/report.schema.json").read_text(encoding="utf-8")
DOCUMENT: Schema = json.loads(TEXT)
DEFS = DOCUMENT["$defs"]


def errors(report: dict[str, Any]) -> list[str]:
    """Where and why a report is not valid, as far down as the schema tells."""
    found = []
    waiting = list(Draft202012Validator(DOCUMENT).iter_errors(report))
    while waiting:
        one = waiting.pop()
        if one.context:
            waiting += one.context
        else:
            found.append(f"{one.json_path}: {one.message}"[:300])
    return sorted(found)


def approved() -> dict[str, Any]:
    """The golden report; what it says of the best level as scripts/triton/measure_served.py says it."""
    report: dict[str, Any] = json.loads((GOLDEN / "report.json").read_text(encoding="utf-8"))
    for row in report["variants"].values():
        if row.get("served"):
            row["served"]["load"]["best"] = best(row["served"]["load"]["levels"])
    return report


def parts(schema: Any, path: str = "#") -> Iterator[tuple[str, Schema]]:
    """Every schema in the document that stands for a key or a definition, with where it stands."""
    if isinstance(schema, list):
        for i, one in enumerate(schema):
            yield from parts(one, f"{path}/{i}")
    if not isinstance(schema, dict):
        return
    for group in ("properties", "$defs"):
        for key, one in schema.get(group, {}).items():
            yield f"{path}/{group}/{key}", one
            yield from parts(one, f"{path}/{group}/{key}")
    for key, one in schema.items():
        if key not in ("properties", "$defs", "if", "then", "else"):
            yield from parts(one, f"{path}/{key}")


def objects(schema: Any) -> Iterator[Schema]:
    """Every schema with keys of its own."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for one in schema.values():
            yield from objects(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from objects(one)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(DOCUMENT)
    assert DOCUMENT["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert DOCUMENT["properties"]["schema"]["const"] == SCHEMA


def test_every_reference_leads_somewhere() -> None:
    used = {part.split('"')[0] for part in TEXT.split('"#/$defs/')[1:]}
    assert used == set(DEFS)


def test_every_key_is_described_in_a_sentence() -> None:
    found = dict(parts(DOCUMENT))
    assert len(found) > 250
    bare = [path for path, one in found.items() if len(one.get("description", "").split()) < 2]
    assert bare == []
    unended = [path for path, one in found.items() if not one["description"].endswith(".")]
    assert unended == []


def test_every_object_is_closed_or_says_what_its_keys_hold() -> None:
    found = list(objects(DOCUMENT))
    assert len(found) > 40
    for one in found:
        keys, more = set(one.get("properties", {})), one["additionalProperties"]
        assert (more is False) == bool(keys), one["description"]
        assert set(one.get("required", [])) <= (keys or set(BY_NAME)), one["description"]


def test_the_approved_report_is_valid() -> None:
    assert errors(approved()) == []


@pytest.mark.usefixtures("project")
def test_a_report_that_the_steps_made_is_valid() -> None:
    step(state_claims, TOML, "--results", R, "--samples", f"{R}/samples.json", "--served", "no",
         "--out", f"{R}/claims.json", *shipped())  # fmt: skip
    report = report_of(None)
    measured = [name for name, row in report["variants"].items() if row["measured"]]
    assert len(measured) >= 5
    assert errors(report) == []


def test_a_report_without_a_gpu_budget_or_claim_is_valid() -> None:
    report = approved()
    report["claims"] = {"refused": "no labelled positives"}
    for row in report["variants"].values():
        if "claim" in row:
            row["claim"] = {"samples": 0}
    assert errors(report) == []
    report["claims"] = {}
    assert errors(report) == []


def test_a_promoted_variant_and_no_recommendation_are_valid() -> None:
    report = approved()
    report["promotion"] = {
        "variant": "onnx_fp16",
        "threshold": 0.5,
        "failed_gates": ["parity"],
        "open_gates": [],
    }
    report["recommendation"] |= {"variant": None, "threshold": None}
    report["decision"] |= {"exit": 3, "verdict": "nothing passes", "samples_missing": None}
    assert errors(report) == []


def put(path: str, value: Any) -> Any:
    """A change that sets the key at `path`, in which lists have numbers."""

    def change(report: dict[str, Any]) -> None:
        *above, last = path.split(".")
        place: Any = report
        for one in above:
            place = place[int(one) if isinstance(place, list) else one]
        place[last] = value

    return change


def drop(path: str) -> Any:
    """A change that removes the key at `path`."""

    def change(report: dict[str, Any]) -> None:
        *above, last = path.split(".")
        place: Any = report
        for one in above:
            place = place[one]
        del place[last]

    return change


FP16 = "variants.onnx_fp16"
SPOILED = {
    "another schema": (put("schema", 2), "$.schema: "),
    "a word for a number": (put("threshold.logit", "0.5"), "$.threshold.logit: "),
    "a number in words": (put("samples", 60.5), "$.samples: "),
    "an unknown key at the top": (put("accuracy", 0.9), "$: "),
    "an unknown key of a variant": (put(f"{FP16}.speed", 1), f"$.{FP16}: "),
    "an unknown key of a gate": (put(f"{FP16}.gates.0.why", "x"), f"$.{FP16}.gates[0]: "),
    "a missing key at the top": (drop("decision"), "$: "),
    "a missing key of a variant": (drop(f"{FP16}.flips"), f"$.{FP16}: "),
    "gates without a claim": (drop(f"{FP16}.claim"), f"$.{FP16}: "),
    "no reason": (drop("variants.trt_fp16.reason"), "$.variants.trt_fp16: "),
    "a variant left out": (drop("variants.trt_fp16"), "$.variants: "),
    "an unknown variant": (put("recommendation.variant", "onnx_fp8"), "$.recommendation.variant: "),
    "an infinite number": (put(f"{FP16}.deviation.max", float("inf")), f"$.{FP16}.deviation.max: "),
    "minus infinity": (put("threshold.gap_low", -float("inf")), "$.threshold.gap_low: "),
    "a share above 1": (put("threshold.recall", 1.01), "$.threshold.recall: "),
    "a negative count": (put(f"{FP16}.flips.total", -1), f"$.{FP16}.flips.total: "),
    "a negative time": (put(f"{FP16}.latency.1.latency_p50_ms", -0.1), f"$.{FP16}.latency['1'].latency_p50_ms: "),
    "an unknown state": (put(f"{FP16}.gates.0.state", "maybe"), f"$.{FP16}.gates[0].state: "),
    "passed and not": (put(f"{FP16}.gates.0.passed", False), f"$.{FP16}.gates[0].passed: "),
    "an unknown exit": (put("decision.exit", 1), "$.decision.exit: "),
    "no hash": (put("inputs.x", "0" * 63), "$.inputs.x: "),
    "an unknown objective": (put("rules.weights", {"beauty": 1.0}), "$.rules.weights: "),
    "refused and claimed": (put("claims.refused", "x"), "$.claims: "),
}  # fmt: skip


@pytest.mark.parametrize("change, where", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_report_is_not_valid(change: Any, where: str) -> None:
    report = approved()
    change(report)
    found = errors(report)
    assert any(one.startswith(where) for one in found), found


def test_an_infinite_number_in_the_text_is_refused() -> None:
    text = json.dumps(approved()).replace('"samples": 60', '"samples": 1e999', 1)
    assert json.loads(text)["samples"] == float("inf")
    assert errors(json.loads(text)) != []


def test_what_the_report_takes_over_is_described() -> None:
    """The keys that conclude copies are those of the schema."""
    assert set(CLAIMS) == set(DOCUMENT["properties"]["claims"]["properties"])
    assert set(REPAIR) == set(DEFS["repair"]["properties"])
    assert set(LOAD) == set(DEFS["served"]["properties"]["load"]["properties"])


def test_the_words_are_those_of_the_program() -> None:
    assert DEFS["variant_name"]["enum"] == list(BY_NAME)
    assert DOCUMENT["properties"]["reference"]["const"] == REFERENCES["torch"].name
    assert DOCUMENT["properties"]["variants"]["required"] == list(BY_NAME)
    states = [gates.PASSED, gates.FAILED, gates.INSUFFICIENT, gates.UNMEASURED]
    assert DEFS["gate"]["properties"]["state"]["enum"] == states
    decision = DOCUMENT["properties"]["decision"]["properties"]
    assert decision["exit"]["enum"] == list(gates.EXITS)
    assert decision["verdict"]["enum"] == list(gates.EXITS.values())
    rules = DOCUMENT["properties"]["rules"]["properties"]
    assert rules["policy"]["enum"] == list(POLICIES)
    assert rules["weights"]["propertyNames"]["enum"] == list(OBJECTIVES)
