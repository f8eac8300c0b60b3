"""case.toml: what is accepted, and what every refusal says. Run through read_samples."""

from fractions import Fraction
from pathlib import Path

import click
import pytest

from scripts.case.keys import DTYPES, HEADS
from scripts.case.read_case import Images, Input, read_case
from scripts.case.rules import Rules
from tests.toy_case import TOML, Toy

IMAGES = """
[images]
folder = "images"
mode = "grey"
"""
CSV = """
[csv]
file = "data.csv"
"""


def images_toml(more: str = "") -> str:
    """The case with a folder of images for its data."""
    text = TOML.replace('file = "inputs.npy"\n', "").replace('file = "labels.npy"\n', "")
    return text.replace("positive = 1", 'positive = "yes"') + IMAGES + more


def csv_toml() -> str:
    """The case with a CSV for its data."""
    text = TOML.replace('file = "inputs.npy"', 'columns = ["a", "b"]')
    return text.replace('file = "labels.npy"', 'column = "label"') + CSV


def test_a_good_file_is_read_as_it_stands(toy: Toy) -> None:
    case = read_case(toy.toml)
    assert (case.name, case.folder, case.precision) == ("toy", toy.folder, Fraction(9, 10))
    assert (case.factory, case.weights) == ("model.py:build", toy.folder / "weights.pth")
    assert (case.weights_key, case.arguments, case.output, case.skip) == (None, {}, None, ())
    assert (case.head, case.positive_class, case.max_batch) == ("logit", 1, 4)
    assert case.inputs == (Input("x", (2,), "float32", toy.folder / "inputs.npy", ()),)
    assert (case.labels_file, case.labels_column) == (toy.folder / "labels.npy", None)
    assert (case.positive, case.negative, case.images, case.csv) == (1, 0, None, None)


def test_every_optional_key_is_read(toy: Toy) -> None:
    toy.change("precision = 0.9", 'precision = 1\nskip = ["onnx_fp16"]')
    toy.change('head = "logit"', 'head = "multiclass"\npositive_class = 2\noutput = "out"')
    toy.change("max_batch = 4", 'max_batch = 9\nweights_key = "ema"\narguments = { width = 3 }')
    toy.change("positive = 1", 'positive = "cat"\nnegative = "dog"')
    case = read_case(toy.toml)
    assert (case.precision, case.skip) == (Fraction(1), ("onnx_fp16",))
    assert (case.head, case.positive_class, case.output) == ("multiclass", 2, "out")
    assert (case.max_batch, case.weights_key, case.arguments) == (9, "ema", {"width": 3})
    assert (case.positive, case.negative) == ("cat", "dog")


@pytest.mark.parametrize(("positive", "negative"), [("1", 0), ("0", 1), ("2", None)])
def test_the_negative_label_follows_only_from_0_and_1(
    toy: Toy, positive: str, negative: int | None
) -> None:
    toy.change("positive = 1", f"positive = {positive}")
    assert read_case(toy.toml).negative == negative


@pytest.mark.parametrize(("written", "exact"), [("0.9", "9/10"), ("0.955", "191/200"), ("1", "1")])
def test_the_precision_is_the_decimal_that_was_written(toy: Toy, written: str, exact: str) -> None:
    toy.change("precision = 0.9", f"precision = {written}")
    assert read_case(toy.toml).precision == Fraction(exact)


def test_images_are_read_with_their_defaults(toy: Toy) -> None:
    toy.toml.write_text(images_toml())
    case = read_case(toy.toml)
    folder = toy.folder / "images"
    assert case.images == Images(folder, "grey", None, None, "bilinear", None, None, None, "chw")
    assert (case.labels_file, case.positive, case.negative) == (None, "yes", None)


def test_images_are_read_with_all_their_keys(toy: Toy) -> None:
    more = 'resize = [8, 9]\ncentre_crop = 7\ninterpolation = "nearest"\ndivide_by = 255\n'
    toy.toml.write_text(images_toml(more + 'mean = [0.5]\nstd = [2]\nlayout = "hwc"\n'))
    assert read_case(toy.toml).images == Images(
        toy.folder / "images", "grey", (8, 9), (7, 7), "nearest", 255, (0.5,), (2.0,), "hwc"
    )


def test_a_csv_is_read(toy: Toy) -> None:
    toy.toml.write_text(csv_toml())
    case = read_case(toy.toml)
    assert (case.csv, case.labels_column) == (toy.folder / "data.csv", "label")
    assert case.inputs == (Input("x", (2,), "float32", None, ("a", "b")),)


def test_a_missing_file_is_named_with_the_command_that_writes_one(read_toy: Toy) -> None:
    read_toy.toml.unlink()
    read_toy.refuses(read_toy.read, read_toy.toml, "does not exist", "make new CASE=toy")


@pytest.mark.parametrize("text", ["precision = \n", "[model\n", "a = 1\na = 2\n"])
def test_invalid_toml_is_refused_with_the_place(read_toy: Toy, text: str) -> None:
    read_toy.toml.write_text(text)
    read_toy.refuses(read_toy.read, read_toy.toml, "not valid TOML", "line")


def test_a_file_that_is_not_utf_8_is_refused(read_toy: Toy) -> None:
    read_toy.toml.write_bytes("# é\n".encode("latin-1") + TOML.encode())
    read_toy.refuses(read_toy.read, read_toy.toml, "not valid TOML", "utf-8")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('factory = "model.py:build"\n', "[model]"),
        ('weights = "weights.pth"\n', "[model]"),
        ('head = "logit"\n', "[model]"),
        ("max_batch = 4\n", "[model]"),
        ('name = "x"\n', "[inputs]"),
        ("shape = [2]\n", "[inputs]"),
        ('dtype = "float32"\n', "[inputs]"),
    ],
)
def test_a_missing_key_is_named_with_its_table(read_toy: Toy, line: str, where: str) -> None:
    read_toy.change(line, "")
    key = line.split()[0]
    read_toy.refuses(read_toy.read, read_toy.toml, f"the key '{key}' is missing in {where}")


@pytest.mark.parametrize("table", ["model", "labels"])
def test_a_missing_table_is_named(read_toy: Toy, table: str) -> None:
    start = TOML.index(f"[{table}]")
    end = TOML.find("\n\n", start)
    read_toy.toml.write_text(TOML[:start] + (TOML[end:] if end > 0 else ""))
    read_toy.refuses(read_toy.read, read_toy.toml, f"the key '{table}' is missing")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("precision = 0.9", "presicion = 0.9"),
        ("[labels]", "[lables]"),
        ("factory =", "factroy ="),
        ("max_batch =", "maxbatch ="),
        ("dtype =", "dtpye ="),
        ("shape =", "shapes ="),
        ("positive =", "postive ="),
    ],
)
def test_a_misspelt_key_suggests_the_nearest(read_toy: Toy, right: str, wrong: str) -> None:
    read_toy.change(right, wrong)
    right, wrong = (word.strip("[] =0.9") for word in (right, wrong))
    read_toy.refuses(
        read_toy.read, read_toy.toml, f"unknown key '{wrong}'", f"did you mean '{right}'?"
    )


def test_a_key_like_no_other_lists_those_known(read_toy: Toy) -> None:
    read_toy.change("max_batch = 4", "max_batch = 4\nzzz = 1")
    read_toy.refuses(
        read_toy.read, read_toy.toml, "unknown key 'zzz' in [model]", "factory, weights", "output"
    )


@pytest.mark.parametrize(
    ("old", "new", "found", "wanted"),
    [
        ("max_batch = 4", 'max_batch = "4"', "'4'", "a whole number"),
        ("max_batch = 4", "max_batch = 4.0", "4.0", "a whole number"),
        ("max_batch = 4", "max_batch = true", "True", "a whole number"),
        ("precision = 0.9", 'precision = "0.9"', "'0.9'", "a number"),
        ("precision = 0.9", "precision = true", "True", "a number"),
        ('weights = "weights.pth"', "weights = 5", "(5)", "a text"),
        ('head = "logit"', "head = ['logit']", "['logit']", "a text"),
        ("shape = [2]", "shape = 2", "(2)", "a list"),
        ("positive = 1", "positive = true", "True", "a whole number or a text"),
        ("positive = 1", "positive = 1.0", "1.0", "a whole number or a text"),
        ("max_batch = 4", "max_batch = 4\narguments = 3", "(3)", "a table"),
        ("precision = 0.9", "precision = 0.9\nskip = 'onnx_fp16'", "'onnx_fp16'", "a list"),
        ("[[inputs]]", "[inputs]", "a table", "a list"),
    ],
)
def test_a_wrong_type_says_what_it_is_and_must_be(
    read_toy: Toy, old: str, new: str, found: str, wanted: str
) -> None:
    read_toy.change(old, new)
    key = new.splitlines()[-1].split("=")[0].strip("[] ")
    read_toy.refuses(read_toy.read, read_toy.toml, f"'{key}' in", found, f"must be {wanted}")


def test_a_table_that_is_none_is_refused(read_toy: Toy) -> None:
    start = TOML.index("[[inputs]]")
    read_toy.toml.write_text("inputs = [3]\n" + TOML[:start] + TOML[TOML.index("[labels]") :])
    read_toy.refuses(read_toy.read, read_toy.toml, "[inputs]", "(3)", "must be a table")


@pytest.mark.parametrize("value", ["0", "-0.5", "1.5", "nan", "inf", "0.12345678912"])
def test_a_precision_out_of_range_is_quoted(read_toy: Toy, value: str) -> None:
    read_toy.change("precision = 0.9", f"precision = {value}")
    read_toy.refuses(read_toy.read, read_toy.toml, f"precision is {value}", "above 0", "at most")


@pytest.mark.parametrize("value", [0, -4, 65537, 10**12])
def test_a_batch_that_cannot_be_is_refused(read_toy: Toy, value: int) -> None:
    read_toy.change("max_batch = 4", f"max_batch = {value}")
    read_toy.refuses(read_toy.read, read_toy.toml, f"max_batch is {value}", "1 to 65536")


@pytest.mark.parametrize(
    "value", ["/elsewhere/weights.pth", "../weights.pth", "a/../../weights.pth"]
)
@pytest.mark.parametrize("old", ['"weights.pth"', '"inputs.npy"', '"labels.npy"'])
def test_a_path_that_leaves_the_folder_is_refused(read_toy: Toy, old: str, value: str) -> None:
    read_toy.change(old, f'"{value}"')
    read_toy.refuses(read_toy.read, read_toy.toml, f"{value!r} leaves the folder {read_toy.folder}")


@pytest.mark.parametrize("value", ["/elsewhere/images", "../images"])
def test_a_folder_of_images_or_a_csv_elsewhere_is_refused(read_toy: Toy, value: str) -> None:
    read_toy.toml.write_text(images_toml().replace('"images"', f'"{value}"'))
    read_toy.refuses(read_toy.read, read_toy.toml, f"{value!r} leaves the folder")
    read_toy.toml.write_text(csv_toml().replace('"data.csv"', f'"{value}"'))
    read_toy.refuses(read_toy.read, read_toy.toml, f"{value!r} leaves the folder")


@pytest.mark.parametrize("value", ["../other.py:build", "/elsewhere/other.py:build"])
def test_a_factory_that_leaves_the_folder_is_refused(checked_toy: Toy, value: str) -> None:
    text = Path("data/toy/model.py").read_text()
    Path("data/other.py").write_text(text)
    checked_toy.change("model.py:build", value)
    checked_toy.refuses(
        checked_toy.check, checked_toy.toml, value.split(":")[0], "leaves the folder"
    )


def test_a_dtype_in_other_letters_suggests_the_nearest(read_toy: Toy) -> None:
    read_toy.change('"float32"', '"Float32"')
    read_toy.refuses(
        read_toy.read, read_toy.toml, "dtype of the input 'x' is 'Float32'", "'float32'"
    )


@pytest.mark.parametrize("value", ["float64", "int8", "double", ""])
def test_an_unknown_dtype_is_quoted_with_every_known_one(read_toy: Toy, value: str) -> None:
    """The nearest name alone would send float64 to float16."""
    read_toy.change('"float32"', f'"{value}"')
    read_toy.refuses(read_toy.read, read_toy.toml, f"dtype of the input 'x' is {value!r}", *DTYPES)


@pytest.mark.parametrize("value", ["sigmoid", "logits"])
def test_an_unknown_head_is_quoted(read_toy: Toy, value: str) -> None:
    read_toy.change('"logit"', f'"{value}"')
    text = read_toy.refuses(read_toy.read, read_toy.toml, f"head is {value!r}", "logit")
    assert "did you mean 'logit'?" in text or all(head in text for head in HEADS)


@pytest.mark.parametrize("value", ["onnx_fp61", "torch_fp32"])
def test_a_variant_that_cannot_be_skipped_is_quoted(read_toy: Toy, value: str) -> None:
    """The reference cannot be left out."""
    read_toy.change("precision = 0.9", f'precision = 0.9\nskip = ["{value}"]')
    read_toy.refuses(read_toy.read, read_toy.toml, f"skip is {value!r}")


@pytest.mark.parametrize("value", ["[0]", "[-2]", "[2.0]", "[true]", '["2"]', "[[2]]"])
def test_a_shape_that_is_none_is_quoted(read_toy: Toy, value: str) -> None:
    read_toy.change("shape = [2]", f"shape = {value}")
    read_toy.refuses(
        read_toy.read, read_toy.toml, "shape of the input 'x'", "whole numbers above 0"
    )


@pytest.mark.parametrize("name", ["", "1x", "my x", "a-b", "a.b"])
def test_a_name_that_cannot_be_an_input_is_quoted(read_toy: Toy, name: str) -> None:
    read_toy.change('name = "x"', f'name = "{name}"')
    read_toy.refuses(read_toy.read, read_toy.toml, f"input name {name!r}", "letters")


def test_two_inputs_of_one_name_are_refused(read_toy: Toy) -> None:
    table = TOML[TOML.index("[[inputs]]") : TOML.index("[labels]")]
    read_toy.change("[labels]", table + "[labels]")
    read_toy.refuses(read_toy.read, read_toy.toml, "input name 'x'", "only once")


def test_no_input_at_all_is_refused(read_toy: Toy) -> None:
    start = TOML.index("[[inputs]]")
    read_toy.toml.write_text("inputs = []\n" + TOML[:start] + TOML[TOML.index("[labels]") :])
    read_toy.refuses(read_toy.read, read_toy.toml, "inputs is empty", "[[inputs]]")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ('"multiclass"', ["head is 'multiclass'", "positive_class"]),
        ('"multiclass"\npositive_class = -1', ["positive_class is -1"]),
        ('"logit"\npositive_class = 2', ["positive_class is 2", "'logit'", "0 or 1"]),
        ('"two_logits"\npositive_class = 2', ["positive_class is 2", "'two_logits'", "0 or 1"]),
    ],
)
def test_a_positive_class_that_the_head_cannot_have(
    read_toy: Toy, head: str, words: list[str]
) -> None:
    read_toy.change('"logit"', head)
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


def test_a_negative_positive_class_of_a_multiclass_head_is_not_told_0_or_1(toy: Toy) -> None:
    toy.change('"logit"', '"multiclass"\npositive_class = -1')
    assert "0 or 1" not in toy.read().output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[labels]", "[labels]\ncolumn = 'y'"), ["no use for 'column'", ".npy"]),
        (('file = "labels.npy"\n', ""), ["[labels] needs 'file'", ".npy"]),
        (('file = "inputs.npy"\n', ""), ["input 'x' needs", "'file'"]),
        (("shape = [2]", "shape = [2]\ncolumns = ['a']"), ["input 'x' needs", "'file'"]),
    ],
)
def test_a_key_that_belongs_to_another_form_of_data(
    read_toy: Toy, change: tuple[str, str], words: list[str]
) -> None:
    read_toy.change(*change)
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", CSV, ["[images] and [csv]"]),
        ('"grey"', '"gray"', ["mode in [images] is 'gray'", "did you mean 'grey'?"]),
        ("", 'layout = "cwh"\n', ["layout in [images] is 'cwh'", "chw"]),
        ("", 'interpolation = "cubic"\n', ["interpolation in [images] is 'cubic'", "bicubic"]),
        ("", "resize = 0\n", ["resize in [images]", "above 0"]),
        ("", "resize = [1, 2, 3]\n", ["resize in [images] is [1, 2, 3]", "[height, width]"]),
        ("", "centre_crop = [-1, 2]\n", ["centre_crop in [images]", "above 0"]),
        ("", "mean = [1, 2, 3]\n", ["mean in [images] is [1, 2, 3]", "1 number"]),
        ("", "std = ['a']\n", ["std in [images] is ['a']", "1 number"]),
        ("", "mean = [true]\n", ["mean in [images] is [True]", "1 number"]),
        ("", "std = [0]\n", ["std", "must not be 0"]),
        ("", "divide_by = 0\n", ["divide_by", "must not be 0"]),
        ("", "mean = [nan]\n", ["mean", "nan"]),
        ("", "divide_by = inf\n", ["divide_by", "inf"]),
        ("", "crop = 3\n", ["unknown key 'crop' in [images]", "did you mean 'centre_crop'?"]),
        ('mode = "grey"\n', "", ["'mode' is missing in [images]"]),
        ('positive = "yes"', "positive = 1", ["positive", "subfolder"]),
        ('positive = "yes"', 'positive = "yes"\nfile = "l.npy"', ["no use for 'file'", "[images]"]),
        ("shape = [2]", "shape = [2]\nfile = 'i.npy'", ["[images]", "[[inputs]]"]),
    ],
)
def test_a_bad_table_of_images(read_toy: Toy, old: str, new: str, words: list[str]) -> None:
    text = images_toml()
    read_toy.toml.write_text(text.replace(old, new) if old else text + new)
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('column = "label"\n', "", ["[labels] needs 'column'", "[csv]"]),
        ('columns = ["a", "b"]\n', "", ["input 'x' needs", "'columns'"]),
        ('columns = ["a", "b"]', "columns = [1, 2]", ["columns", "1", "text"]),
        ('file = "data.csv"', 'fiel = "data.csv"', ["unknown key 'fiel'", "did you mean 'file'?"]),
        ('file = "data.csv"', "", ["'file' is missing in [csv]"]),
    ],
)
def test_a_bad_table_of_a_csv(read_toy: Toy, old: str, new: str, words: list[str]) -> None:
    read_toy.write("data.csv", "a,b,label\n1,2,0\n3,4,1\n")
    read_toy.toml.write_text(csv_toml().replace(old, new))
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("weights = ", "'weights' = ", "write it once"),
        ('weights = "weights.pth"', 'weights = """weights.pth"""', "write it once"),
        ('weights = "weights.pth"', 'weights = "my weights.pth"', "letters, digits"),
        ("precision = 0.9", 'precision = 0.9\nskip = [\n "onnx_fp16",\n]', "on a single line"),
    ],
)
def test_what_make_reads_line_by_line_must_look_so(
    read_toy: Toy, old: str, new: str, words: str
) -> None:
    read_toy.change(old, new)
    read_toy.refuses(read_toy.read, read_toy.toml, words)


def test_another_key_called_weights_is_no_second_file(read_toy: Toy) -> None:
    read_toy.change('weights = "weights.pth"', 'weights = "weights.pth"\narguments.weights = "x"')
    read_toy.read()


def test_a_byte_order_mark_is_no_key(read_toy: Toy) -> None:
    text = read_toy.toml.read_text(encoding="utf-8")
    read_toy.toml.write_text(text, encoding="utf-8-sig")
    read_toy.read()


# ---- rules, unlabelled data and groups -------------------------------------------------------------

DEFAULTS = Rules()
EVERY_RULE = """
[threshold]
policy = "max_recall"
recall_slack = 0
guarantee = 0.9

[gates]
flip_rate = 0.01
confidence = 0.99
zero_flips = true
precision_slack = 1
latency_p99_ms = 20
memory_mb = 512.5

[ranking]
weights = { latency = 3, throughput = 0, size = 1 }
"""


def test_without_a_rule_the_defaults_stand(toy: Toy) -> None:
    case = read_case(toy.toml)
    assert case.rules == DEFAULTS
    assert (case.unlabelled, case.groups, case.group_column) == (None, None, None)
    assert (DEFAULTS.policy, DEFAULTS.recall_slack, DEFAULTS.guarantee) == (
        "max_recall", 0.005, None,
    )  # fmt: skip
    assert (DEFAULTS.flip_rate, DEFAULTS.confidence, DEFAULTS.zero_flips) == (0.001, 0.95, False)
    assert (DEFAULTS.precision_slack, DEFAULTS.latency_p99_ms, DEFAULTS.memory_mb) == (
        0.1, None, None,
    )  # fmt: skip
    assert DEFAULTS.weights == {"latency": 1.0}


def test_empty_tables_are_the_defaults(toy: Toy) -> None:
    toy.toml.write_text(TOML + "[threshold]\n[gates]\n[ranking]\n[data]\n")
    assert read_case(toy.toml).rules == DEFAULTS


def test_every_rule_is_read(toy: Toy) -> None:
    toy.toml.write_text(TOML + EVERY_RULE)
    rules = read_case(toy.toml).rules
    assert rules == Rules(
        "max_recall", 0.0, 0.9, 0.01, 0.99, True, 1.0, 20.0, 512.5, {"latency": 0.75, "size": 0.25}
    )
    assert {type(rules.precision_slack), type(rules.latency_p99_ms)} == {float}


@pytest.mark.parametrize("objective", ["latency", "throughput", "memory", "size"])
def test_an_objective_is_a_single_weight(toy: Toy, objective: str) -> None:
    toy.toml.write_text(TOML + f'[ranking]\nobjective = "{objective}"\n')
    assert read_case(toy.toml).rules.weights == {objective: 1.0}


@pytest.mark.parametrize("largest", ["1e308", "5e-324", "1"])
def test_weights_of_any_size_sum_to_1(toy: Toy, largest: str) -> None:
    text = f"latency = {largest}, memory = {largest}, size = 0"
    toy.toml.write_text(TOML + f"[ranking]\nweights = {{ {text} }}\n")
    assert read_case(toy.toml).rules.weights == {"latency": 0.5, "memory": 0.5}


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("threshold", 'policy = "max_precision"', ["policy in [threshold]", "widest_gap"]),
        ("threshold", 'policy = "widest"', ["'widest'", "did you mean 'widest_gap'?"]),
        ("threshold", "policy = 1", ["'policy' in [threshold]", "must be a text"]),
        ("threshold", "recall_slack = 1", ["recall_slack", "is 1;", "below 1"]),
        ("threshold", "recall_slack = -0.1", ["recall_slack", "is -0.1;", "at least 0"]),
        ("threshold", "recall_slack = nan", ["recall_slack", "nan"]),
        ("threshold", "guarantee = 0.5", ["guarantee", "is 0.5;", "above 0.5 and below 1"]),
        ("threshold", "guarantee = 1", ["guarantee", "is 1;", "above 0.5 and below 1"]),
        ("threshold", "guarantee = 95", ["guarantee", "is 95;", "like 0.95"]),
        ("threshold", "guarantee = true", ["'guarantee'", "true or false (True)", "a number"]),
        (
            "threshold",
            'policy = "widest_gap"\nguarantee = 0.9',
            ["policy = 'widest_gap'", "guarantee", "leave one"],
        ),
        ("threshold", "slack = 0.1", ["unknown key 'slack'", "did you mean 'recall_slack'?"]),
        ("gates", "flip_rate = 0", ["flip_rate", "is 0;", "between 0 and 1"]),
        ("gates", "flip_rate = 1.0", ["flip_rate", "is 1.0;", "between 0 and 1"]),
        ("gates", "flip_rate = nan", ["flip_rate", "nan"]),
        ("gates", "confidence = 0.3", ["confidence in [gates]", "0.3", "above 0.5 and below 1"]),
        ("gates", "confidence = inf", ["confidence in [gates]", "inf"]),
        ("gates", "zero_flips = 1", ["'zero_flips'", "a whole number (1)", "true or false"]),
        ("gates", 'zero_flips = "yes"', ["'zero_flips'", "'yes'", "must be true or false"]),
        ("gates", "precision_slack = -0.01", ["precision_slack", "-0.01", "0 to 1"]),
        ("gates", "precision_slack = 1.01", ["precision_slack", "1.01", "0 to 1"]),
        ("gates", "precision_slack = nan", ["precision_slack", "nan"]),
        ("gates", "latency_p99_ms = 0", ["latency_p99_ms", "is 0;", "above 0"]),
        ("gates", "latency_p99_ms = -3.5", ["latency_p99_ms", "-3.5", "above 0"]),
        ("gates", "latency_p99_ms = inf", ["latency_p99_ms", "inf", "finite"]),
        ("gates", "memory_mb = nan", ["memory_mb", "nan", "finite"]),
        ("gates", f"memory_mb = {10**400}", ["memory_mb", "finite"]),
        ("gates", 'memory_mb = "1 GB"', ["'memory_mb'", "'1 GB'", "a number"]),
        ("gates", "latency_ms = 3", ["unknown key 'latency_ms'", "'latency_p99_ms'?"]),
        ("ranking", 'objective = "speed"', ["objective in [ranking]", "'speed'", "throughput"]),
        ("ranking", 'objective = "latency"\nweights = { size = 1 }', ["keep one of the two"]),
        ("ranking", "weights = {}", ["weights in [ranking] is {}", "above 0"]),
        ("ranking", "weights = { size = 0 }", ["'size': 0", "at least one", "above 0"]),
        ("ranking", "weights = { size = -1 }", ["weight of size", "-1", "at least 0"]),
        ("ranking", "weights = { size = nan, memory = 1 }", ["weight of size", "nan"]),
        ("ranking", "weights = { size = true }", ["'size' in [ranking.weights]", "a number"]),
        ("ranking", "weights = { speed = 1 }", ["unknown key 'speed' in [ranking.weights]"]),
        ("ranking", "weights = 3", ["'weights' in [ranking]", "(3)", "a table"]),
        ("ranking", 'weights = "latency"', ["'weights' in [ranking]", "a table"]),
    ],
)
def test_a_bad_rule_is_quoted(read_toy: Toy, table: str, line: str, words: list[str]) -> None:
    read_toy.toml.write_text(f"{TOML}\n[{table}]\n{line}\n")
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


@pytest.mark.parametrize("table", ["threshold", "gates", "ranking", "data"])
def test_a_rule_that_is_no_table_is_refused(read_toy: Toy, table: str) -> None:
    read_toy.toml.write_text(f"{table} = 3\n{TOML}")
    read_toy.refuses(read_toy.read, f"'{table}' in the top of the file", "(3)", "a table")


def test_the_places_of_unlabelled_data_and_groups_are_read(toy: Toy) -> None:
    toy.toml.write_text(TOML + '[data]\nunlabelled = "new/traffic"\ngroups = "g.npy"\n')
    case = read_case(toy.toml)
    assert (case.unlabelled, case.groups) == (toy.folder / "new/traffic", toy.folder / "g.npy")
    toy.toml.write_text(csv_toml() + '[data]\nunlabelled = "new.csv"\ngroup_column = "patient"\n')
    case = read_case(toy.toml)
    assert (case.unlabelled, case.group_column) == (toy.folder / "new.csv", "patient")
    assert case.groups is None


@pytest.mark.parametrize("key", ["unlabelled", "groups"])
@pytest.mark.parametrize("value", ["/elsewhere/traffic", "../traffic", "a/../../b"])
def test_data_that_leaves_the_folder_is_refused(read_toy: Toy, key: str, value: str) -> None:
    read_toy.toml.write_text(f'{TOML}\n[data]\n{key} = "{value}"\n')
    read_toy.refuses(read_toy.read, f"{value!r} leaves the folder {read_toy.folder}")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[data]\nunlabeled = 'traffic'", ["unknown key 'unlabeled'", "did you mean 'unlabelled'"]),
        ("[data]\nunlabelled = 3", ["'unlabelled' in [data]", "(3)", "a text"]),
        ("[data]\n'unlabelled' = 'traffic'", ["write it once, as unlabelled ="]),
        ("[data]\nunlabelled = '''traffic'''", ["write it once, as unlabelled ="]),
        ("[data]\nunlabelled = 'my traffic'", ["unlabelled is 'my traffic'", "letters, digits"]),
        ("[data]\nunlabelled = ''", ["unlabelled is ''", "letters, digits"]),
        ("data.unlabelled = 'traffic'", ["unknown key 'data' in [labels]"]),
        ("[data]\ngroup_column = 'patient'", ["no use for 'group_column'", "groups"]),
        ("[data]\ngroups = 3", ["'groups' in [data]", "(3)", "a text"]),
        ("[model.arguments]\nunlabelled = 'a'", ["unlabelled = 'a'", "outside of [data]"]),
    ],
)
def test_a_bad_table_of_data(read_toy: Toy, more: str, words: list[str]) -> None:
    read_toy.toml.write_text(f"{TOML}\n{more}\n")
    read_toy.refuses(read_toy.read, read_toy.toml, *words)


def test_an_inline_table_hides_unlabelled_from_make_and_is_refused(read_toy: Toy) -> None:
    read_toy.toml.write_text("data = { unlabelled = 'traffic' }\n" + TOML)
    read_toy.refuses(read_toy.read, "write it once, as unlabelled =", "on a line of its own")


def test_groups_of_a_csv_are_a_column(read_toy: Toy) -> None:
    read_toy.toml.write_text(csv_toml() + '[data]\ngroups = "groups.npy"\n')
    read_toy.refuses(read_toy.read, "no use for 'groups'", "[csv]", "group_column")


@pytest.mark.parametrize("name", ["labels", "groups", "torch_fp32", "onnx_fp16"])
def test_an_input_of_a_csv_takes_no_name_of_another_result(read_toy: Toy, name: str) -> None:
    """results/<case>/<name>.npy or <name>.traffic.npy would be two things."""
    read_toy.toml.write_text(csv_toml().replace('name = "x"', f'name = "{name}"'))
    read_toy.refuses(read_toy.read, f"cannot be called {name!r}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[model]", "[model]\nfamily = '''torch'''", ("family is", "on a line of its own")),
        ("[labels]", '[labels]\n# family = "torch"\n', ()),
    ],
)
def test_the_family_stands_as_make_reads_it(
    toy: Toy, old: str, new: str, words: tuple[str, ...]
) -> None:
    toy.change(old, new)
    if not words:
        assert read_case(toy.toml).family == "torch"
        return
    with pytest.raises(click.ClickException) as caught:
        read_case(toy.toml)
    assert all(word in str(caught.value.message) for word in words), caught.value.message
