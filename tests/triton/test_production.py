"""Configurations as messages: written for a reader, read back whole, damaged ones told in a sentence."""

import itertools
import random
from pathlib import Path

import click
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from scripts.triton.model_config import ORDER, read_config, to_text, write_text
from scripts.triton.production import current, named, names, versions
from scripts.triton.serve_models import main as serve
from tests.toy_case import run, says

RICH = {
    "every kind of field": """
        name: "a" platform: "p" backend: "b" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 8, 8] }
        input { name: "age" data_type: TYPE_INT64 dims: [1] reshape { shape: [] } optional: true }
        output { name: "y" data_type: TYPE_FP16 dims: [-1] label_filename: "labels.txt" }
        dynamic_batching { preferred_batch_size: [4, 8] preserve_ordering: true
          priority_queue_policy { key: 2 value { timeout_action: DELAY } } priority_levels: 3 }
        instance_group { name: "g" kind: KIND_GPU count: 2 gpus: [0, 1] profile: ["1", "2"] }
        version_policy { latest { num_versions: 3 } }
        optimization { cuda { graphs: true } execution_accelerators {
          gpu_execution_accelerator { name: "tensorrt" parameters { key: "b" value: "2" }
                                      parameters { key: "a" value: "1" } } } }
        parameters { key: "z" value { string_value: "last" } }
        parameters { key: "a" value { string_value: "first" } }
        model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {
          data_type: TYPE_FP32 dims: [3, 8, 8] random_data: true } } }
    """,
    "fields that no list of ours names": """
        name: "b" default_model_filename: "m.bin" response_cache { enable: true }
        metric_tags { key: "t" value: "v" } cc_model_filenames { key: "8.0" value: "m80" }
        model_transaction_policy { decoupled: true } model_operations { op_library_filename: "l.so" }
        sequence_batching { max_sequence_idle_microseconds: 5
          direct { minimum_slot_utilization: 0.3 } }
    """,
    "an ensemble": """
        name: "c" platform: "ensemble" ensemble_scheduling {
          step { model_name: "c1" model_version: 7 input_map { key: "x" value: "x" }
                 output_map { key: "y" value: "raw" } }
          step { model_name: "c2" model_version: -1 input_map { key: "raw" value: "raw" } } }
    """,
    "what is there and empty": "dynamic_batching { } version_policy { all { } } parameters { key: '' }",
    "signs that text has other uses for": r"""
        name: "gr\303\266\303\237e \"#'\\\n{}\342\200\250" parameters { key: "#" value { string_value: "a\tb" } }
    """,
    "nothing": "",
}


def message(text):
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize("text", RICH.values(), ids=RICH.keys())
def test_a_configuration_is_read_back_as_it_was_written(text, tmp_path):
    config, path = message(text), tmp_path / "config.pbtxt"
    write_text(
        path, config, {"name": "Why # it is\nso.", "input": "Because.", "nonesuch": "Never."}
    )
    assert read_config(path) == config
    assert message(to_text(config)) == config


@pytest.mark.parametrize("text", RICH.values(), ids=RICH.keys())
def test_the_fields_stand_in_one_order_and_each_is_there(text):
    config = message(text)
    lines = [line for line in to_text(config).split("\n")[:-1] if line[0] not in " }#"]
    found = [name for name, _ in itertools.groupby(line.split()[0].rstrip(":") for line in lines)]
    there = [field.name for field, _ in config.ListFields()]
    assert sorted(found) == sorted(there)
    listed = [name for name in found if name in ORDER]
    assert found[: len(listed)] == listed, "what ORDER does not name comes last"
    assert listed == sorted(listed, key=ORDER.index)


def test_the_order_names_fields_of_triton():
    assert set(ORDER) <= {field.name for field in ModelConfig.DESCRIPTOR.fields}


def test_a_reader_finds_short_things_on_one_line_and_why_they_are_there():
    config = message(
        'parameters { key: "threshold" value { string_value: "0.30000000000000004" } } name: "m" '
        'input { name: "x" data_type: TYPE_FP32 dims: [1, 8, 8] } max_batch_size: 4 '
        'model_warmup { name: "batch 1" inputs { key: "a long name of an input" value { dims: [8, 8] zero_data: true } } }'
    )
    assert to_text(config, {"parameters": "word " * 30, "input": "An image."}) == (
        'name: "m"\nmax_batch_size: 4\n# An image.\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [1, 8, 8] }\n'
        f"# {'word ' * 18}word\n# {'word ' * 10}word\n"
        'parameters { key: "threshold" value { string_value: "0.30000000000000004" } }\n'
        'model_warmup {\n  name: "batch 1"\n  inputs {\n    key: "a long name of an input"\n'
        "    value {\n      dims: [8, 8]\n      zero_data: true\n    }\n  }\n}\n"
    )


def test_the_text_does_not_depend_on_the_order_in_which_a_map_was_filled():
    pairs = [(f"key {number}", str(number)) for number in range(30)]
    texts = set()
    for seed in range(20):
        random.Random(seed).shuffle(pairs)
        config = ModelConfig()
        for key, value in pairs:
            config.parameters[key].string_value = value
            config.metric_tags[key] = value
        texts |= {to_text(config), to_text(ModelConfig.FromString(config.SerializeToString()))}
    assert len(texts) == 1


DAMAGED = {
    "binary": (b"\x80\x03\xff\x00model", "utf-8"),
    "binary that is text": (b"\x00\x01\x02\x1b[31m" + b"x" * 5000, "Expected identifier"),
    "half a file": (b'name: "toy"\ninput { name: "x" ', 'Expected "}"'),
    "another name": (b"max_batch: 4\n", 'no field named "max_batch"'),
    "another type": (b'max_batch_size: "4"\n', "max_batch_size"),
    "a name without its end": (b'name: "toy\n', "missing ending quote"),
    "a field twice": (b'name: "a"\nname: "b"\n', 'multiple "name"'),
    "half a sign": (rb'name: "\xff"', "config.pbtxt"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_told_in_a_sentence(tmp_path, content, words):
    path = tmp_path / "config.pbtxt"
    path.write_bytes(content)
    with pytest.raises(click.ClickException) as error:
        read_config(path)
    said = error.value.message
    assert said.startswith(f"{path} is no configuration that Triton reads (")
    assert said.endswith("). Remove it and run `make all`.")
    assert words in said
    assert said.isprintable() and len(said) < len(str(path)) + 300


def test_a_missing_file_is_told_in_a_sentence(tmp_path):
    with pytest.raises(click.ClickException, match=r"is missing; run `make all` to build it"):
        read_config(tmp_path / "config.pbtxt")


# ---- what a production model is ------------------------------------------------------------------


def serving(folder: Path, policy: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(f'name: "toy"\n{policy}\n')
    return folder


@pytest.mark.parametrize(
    "policy",
    [
        "version_policy { specific { versions: [ 7 ] } }",
        "version_policy{specific{versions:7}}  # as a hand may write it",
        "version_policy: {\n specific: {\n  versions: 7\n }\n}",
    ],
)
def test_the_current_version_however_it_is_written(tmp_path, policy):
    assert current(serving(tmp_path / "toy", policy)) == 7


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("", "names no version in version_policy"),
        ("version_policy { latest { num_versions: 2 } }", "names no version"),
        ("version_policy { all { } }", "names no version"),
        ("version_policy { specific { } }", "names no version"),
        ("version_policy { specific { versions: [1, 3] } }", "names the versions 1, 3 in"),
    ],
)
def test_a_policy_of_other_than_one_version_is_told_in_sentences(tmp_path, policy, words):
    folder = serving(tmp_path / "toy", policy)
    for ask in (lambda: current(folder), lambda: named(folder / "config.pbtxt")):
        with pytest.raises(click.ClickException) as error:
            ask()
        said = error.value.message
        assert said.startswith(f"{folder}/config.pbtxt {words}")
        assert said.endswith("Remove it and run `make all`, which publishes it again.")


def test_no_production_model_yet(tmp_path):
    with pytest.raises(click.ClickException, match=r"There is no production model in .*/toy yet"):
        current(tmp_path / "toy")


@pytest.mark.parametrize(
    "content", ["garbage {", "version_policy { specific { versions: [1, 2] } }"]
)
def test_serving_a_damaged_production_model_is_refused_in_a_sentence(tmp_path, content):
    serving(tmp_path / "toy", content)
    done = run(serve, "toy", "--repository", tmp_path, "--models", "production", "--request",
               tmp_path / "request.json", "--log", tmp_path / "server.log", "--ports", 1, 2, 3)  # fmt: skip
    says(done, tmp_path / "toy/config.pbtxt", "Remove it and run `make all`")


def test_a_version_is_there_when_all_three_models_are(tmp_path):
    assert names("toy") == ("toy", "toy_decision", "toy_verdict")
    for number, name in itertools.product((2, 9, 10), names("toy")):
        (tmp_path / name / str(number)).mkdir(parents=True)
        (tmp_path / name / f"{number}.pbtxt").write_text("")
        (tmp_path / "toy" / f"{number}.json").write_text("{}")
    (tmp_path / "toy" / "1st.json").write_text("{}")
    assert versions(tmp_path, "toy") == [2, 9, 10]
    (tmp_path / "toy_verdict/9.pbtxt").unlink()
    (tmp_path / "toy_decision/2").rmdir()
    assert versions(tmp_path, "toy") == [10]
