"""check_model: a model that is sound passes; one that is not is refused, and told why."""

import hashlib
import json

import numpy as np
import pytest
import torch

from tests.toy_case import INPUTS, LOGITS, TOML, Toy, state


def passes(toy: Toy) -> None:
    result = toy.check()
    assert result.exit_code == 0, result.output
    assert result.output == "torch_fp32: the model is deterministic and independent of the batch\n"


def test_the_result_says_what_was_checked(checked_toy: Toy) -> None:
    content = json.loads(checked_toy.checked.read_text())
    files = [checked_toy.toml, checked_toy.folder / "weights.pth", checked_toy.samples]
    assert (content["variant"], content["step"]) == ("torch_fp32", "check")
    assert content["inputs"] == {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert content["versions"]["torch"] == torch.__version__
    assert 0 <= content["metrics"]["batch_deviation_max"] < 1e-6


def test_a_deviation_below_the_tolerance_is_reported_as_it_is(read_toy: Toy) -> None:
    """A batch of 4 moves each logit by 2^-12 * 3, a batch of 1 by none."""
    read_toy.forward("return self.fc(x) + 2**-12 * (len(x) - 1)")
    passes(read_toy)
    found = json.loads(read_toy.checked.read_text())["metrics"]["batch_deviation_max"]
    assert found == pytest.approx(3 * 2**-12, abs=1e-6)


# ---- outputs that are accepted -------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "return self.fc(x)",
        "return self.fc(x)[:, 0]",
        "return self.fc(x).squeeze(1)",
        "return (self.fc(x),)",
        "return [self.fc(x)]",
        "return {'out': self.fc(x)}",
        "return self.fc(x.mul_(2)) if False else self.fc(x)",
    ],
)
def test_one_output_needs_no_word_in_case_toml(read_toy: Toy, line: str) -> None:
    read_toy.forward(line)
    passes(read_toy)
    np.testing.assert_allclose(read_toy.output().reshape(6, 1), LOGITS, rtol=0, atol=1e-6)


def test_output_0_is_the_only_one(read_toy: Toy) -> None:
    read_toy.change("max_batch = 4", "max_batch = 4\noutput = 0")
    passes(read_toy)


SEVERAL = [
    ("return x, self.fc(x)", "1"),
    ("return [x, self.fc(x)]", "1"),
    ("return {'features': x, 'logit': self.fc(x)}", '"logit"'),
    ("return collections.namedtuple('Out', 'features logit')(x, self.fc(x))", '"logit"'),
    ("return collections.namedtuple('Out', 'features logit')(x, self.fc(x))", "1"),
]


@pytest.mark.parametrize(("line", "output"), SEVERAL)
def test_output_chooses_among_several(read_toy: Toy, line: str, output: str) -> None:
    read_toy.forward(line)
    read_toy.change("max_batch = 4", f"max_batch = 4\noutput = {output}")
    passes(read_toy)
    np.testing.assert_allclose(read_toy.output(), LOGITS, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("line", "output"), SEVERAL)
def test_several_outputs_without_output_are_listed(
    checked_toy: Toy, line: str, output: str
) -> None:
    checked_toy.forward(line)
    known = "'features', 'logit'" if "{" in line else "0, 1"
    checked_toy.refuses(checked_toy.check, checked_toy.toml, known, "output in [model]", "logit")


@pytest.mark.parametrize("output", ["2", "-1", '"logits"'])
@pytest.mark.parametrize(("line", "unused"), SEVERAL)
def test_an_output_that_is_not_there_is_quoted(
    checked_toy: Toy, line: str, unused: str, output: str
) -> None:
    checked_toy.forward(line)
    checked_toy.change("max_batch = 4", f"max_batch = 4\noutput = {output}")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, output.replace('"', "'"))


@pytest.mark.parametrize("output", ["1", '"logit"'])
def test_an_output_is_refused_where_there_is_a_single_one(checked_toy: Toy, output: str) -> None:
    checked_toy.change("max_batch = 4", f"max_batch = 4\noutput = {output}")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "output is", "single output")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("return 'yes'", "str"),
        ("return self.fc(x).tolist()[0][0]", "float"),
        ("return None", "NoneType"),
        ("return ([self.fc(x)],)", "list"),
        ("return {'out': None}", "NoneType"),
    ],
)
def test_an_output_that_is_no_tensor_is_named(checked_toy: Toy, line: str, kind: str) -> None:
    checked_toy.forward(line)
    text = checked_toy.refuses(checked_toy.check, checked_toy.toml, kind)
    assert "AttributeError" not in text, "the words of our own code, not of the model's"


# ---- several inputs and other dtypes -------------------------------------------------------------

TWO = """\
[[inputs]]
name = "b"
shape = [2]
dtype = "float32"
file = "b.npy"

[[inputs]]
name = "a"
shape = [1]
dtype = "float32"
file = "a.npy"

[labels]"""


def two_inputs(toy: Toy, parameters: str, line: str) -> None:
    """Inputs b and a, in this order; the logit is fc(b) + 100 a."""
    start, end = TOML.index("[[inputs]]"), TOML.index("[labels]")
    toy.toml.write_text(TOML[:start] + TWO + TOML[end + len("[labels]") :])
    toy.save("b.npy", INPUTS)
    toy.save("a.npy", np.arange(6, dtype=np.float32)[:, None])
    toy.forward(line, parameters=parameters)
    result = toy.read()
    assert result.exit_code == 0, result.output


def two_outputs(toy: Toy) -> list[float]:
    from scripts.case.read_case import read_case
    from scripts.data.samples import Samples
    from scripts.families.torch.model import load_model, run_torch

    case = read_case(toy.toml)
    return run_torch(load_model(case), Samples(case, toy.samples).batch(0, 6), "cpu")[:, 0].tolist()


WANTED = (LOGITS[:, 0] + 100 * np.arange(6)).tolist()


def test_inputs_go_by_name_whatever_the_order_of_forward(toy: Toy) -> None:
    two_inputs(toy, "a, b", "return self.fc(b) + 100 * a")
    passes(toy)
    assert two_outputs(toy) == pytest.approx(WANTED)


def test_inputs_go_by_place_where_forward_has_other_names(toy: Toy) -> None:
    two_inputs(toy, "first, second", "return self.fc(first) + 100 * second")
    passes(toy)
    assert two_outputs(toy) == pytest.approx(WANTED)


def test_a_parameter_of_forward_with_a_default_needs_no_input(toy: Toy) -> None:
    two_inputs(toy, "a, mask=None, b=None", "return self.fc(b) + 100 * a")
    passes(toy)
    assert two_outputs(toy) == pytest.approx(WANTED)


def test_too_few_inputs_keep_the_words_of_torch(checked_toy: Toy) -> None:
    checked_toy.forward("return self.fc(x) + mask", parameters="x, mask")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "x (4, 2) float32", "'mask'")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16"])
def test_the_model_gets_the_declared_dtype(toy: Toy, dtype: str) -> None:
    toy.change("float32", dtype)
    toy.save("inputs.npy", np.abs(INPUTS).astype(dtype))
    toy.forward(f"assert x.dtype == torch.{dtype}", "return self.fc(x.float())")
    assert toy.read().exit_code == 0
    passes(toy)


def test_whole_numbers_into_an_embedding(toy: Toy) -> None:
    toy.change("float32", "int64")
    toy.save("inputs.npy", np.arange(12).reshape(6, 2) % 3)
    toy.change("nn.Linear(2, width)", "nn.Embedding(3, 1)", "model.py")
    toy.forward("return self.fc(x).sum(1)")
    toy.save_weights({"fc.weight": torch.tensor([[0.5], [1.0], [-2.0]])})
    assert toy.read().exit_code == 0
    passes(toy)


def test_the_model_may_write_to_its_input(read_toy: Toy) -> None:
    """The batch is copied: a second run sees the same numbers, and the file stays as it is."""
    before = (read_toy.folder / "inputs.npy").read_bytes()
    read_toy.forward("return self.fc(x.mul_(2))")
    passes(read_toy)
    assert (read_toy.folder / "inputs.npy").read_bytes() == before


# ---- models that are refused ---------------------------------------------------------------------

DROPOUT = ["return F.dropout(self.fc(x), training=True)", "return F.dropout(self.fc(x))"]
NOISE = "return self.fc(x) + torch.rand(1)"


@pytest.mark.parametrize("line", [*DROPOUT, NOISE])
def test_a_random_part_left_on_is_refused(checked_toy: Toy, line: str) -> None:
    """In a batch of 64, so that two runs are not the same by chance."""
    checked_toy.change("max_batch = 4", "max_batch = 64")
    checked_toy.forward(line)
    checked_toy.refuses(
        checked_toy.check, checked_toy.toml, "two runs", "dropout", "model.py:build"
    )


def batch_norm(toy: Toy, forward: str, options: str = "") -> None:
    toy.change(
        "self.fc = nn.Linear(2, width)",
        f"self.fc = nn.Linear(2, width)\n        self.bn = nn.BatchNorm1d(2{options})",
        "model.py",
    )
    toy.forward(*forward.splitlines())
    norm = torch.nn.BatchNorm1d(2, track_running_stats=not options).state_dict()
    toy.save_weights(state() | {f"bn.{name}": tensor for name, tensor in norm.items()})


def test_a_batch_norm_in_eval_mode_passes(read_toy: Toy) -> None:
    batch_norm(read_toy, "return self.fc(self.bn(x))")
    passes(read_toy)


def test_a_batch_norm_left_in_training_mode_is_refused(checked_toy: Toy) -> None:
    batch_norm(checked_toy, "self.bn.train()\nreturn self.fc(self.bn(x))")
    checked_toy.refuses(
        checked_toy.check, checked_toy.toml, "changes bn.running_mean", "batch norm"
    )


def test_a_batch_norm_over_the_batch_that_keeps_no_state_is_refused(checked_toy: Toy) -> None:
    batch_norm(checked_toy, "return self.fc(self.bn(x))", ", track_running_stats=False")
    text = checked_toy.refuses(checked_toy.check, checked_toy.toml)
    assert "more than 1 value per channel" in text or "mixes the samples" in text


@pytest.mark.parametrize("line", ["x - x.mean(0)", "x / x.norm()", "x.cumsum(0)", "x + len(x)"])
def test_a_model_that_mixes_the_samples_is_refused_with_both_logits(
    checked_toy: Toy, line: str
) -> None:
    checked_toy.forward(f"return self.fc({line})")
    text = checked_toy.refuses(checked_toy.check, checked_toy.toml, "mixes the samples")
    alone, together = (
        text.split("of a sample is ")[1].split(" in a batch of 4")[0].split(" alone and ")
    )
    assert float(alone) != float(together)


def test_a_model_with_a_state_of_its_own_is_refused(checked_toy: Toy) -> None:
    old = "self.fc = nn.Linear(2, width)"
    new = f"{old}\n        self.register_buffer('seen', torch.zeros(()))"
    checked_toy.change(old, new, "model.py")
    checked_toy.forward("self.seen += 1", "return self.fc(x)")
    checked_toy.save_weights(state() | {"seen": torch.zeros(())})
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "changes seen")


def test_a_nan_in_unused_state_is_no_change(read_toy: Toy) -> None:
    old = "self.fc = nn.Linear(2, width)"
    new = f"{old}\n        self.register_buffer('unused', torch.zeros(2))"
    read_toy.change(old, new, "model.py")
    read_toy.save_weights(state() | {"unused": torch.tensor([torch.nan, 1])})
    passes(read_toy)


@pytest.mark.parametrize(
    "line", ["return self.fc(x).squeeze()", "return self.fc(x).squeeze()[..., ]"]
)
def test_an_output_that_loses_the_batch_of_one_is_refused(checked_toy: Toy, line: str) -> None:
    checked_toy.forward(line)
    checked_toy.refuses(
        checked_toy.check, checked_toy.toml, "batch of one", "()", "(1,)", "squeeze"
    )


def test_a_batch_of_one_is_checked_also_where_max_batch_is_1(checked_toy: Toy) -> None:
    checked_toy.change("max_batch = 4", "max_batch = 1")
    checked_toy.forward("return self.fc(x).squeeze()")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "batch of one", "squeeze")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("return self.fc(x).double()", ["float64", "float32 is needed"]),
        ("return self.fc(x).half()", ["float16", "float32 is needed"]),
        ("return self.fc(x).long()", ["int64", "float32 is needed"]),
        ("return self.fc(x)[1:]", ["batch of 4", "(3, 1)", "one row per sample"]),
        ("return self.fc(x).T", ["batch of 4", "(1, 4)", "one row per sample"]),
        ("return self.fc(x).sum()", ["batch of 4", "()", "one row per sample"]),
        ("return self.fc(x).mean(0)", ["batch of 4", "(1,)", "one row per sample"]),
        ("return torch.log(self.fc(x) * 0 - 1)", ["NaN or infinity", "sample 0"]),
        ("return self.fc(x) / (x[:, 1:] != 0)", ["NaN or infinity", "sample 1"]),
        ("return torch.cat([self.fc(x)] * 2, 1)", ["(4, 2)", "'logit' needs (n,) or (n, 1)"]),
        ("return self.fc(x)[:, :, None]", ["(4, 1, 1)", "'logit' needs (n,) or (n, 1)"]),
        ("return self.fc(x)[:, :0]", ["(4, 0)", "'logit' needs (n,) or (n, 1)"]),
    ],
)
def test_an_output_that_cannot_be_a_logit_per_sample(
    checked_toy: Toy, line: str, words: list[str]
) -> None:
    checked_toy.forward(line)
    checked_toy.refuses(checked_toy.check, checked_toy.toml, *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raise ValueError('bad weather')", ["ValueError", "bad weather"]),
        ("return self.fc(x[:, :1])", ["RuntimeError", "shapes cannot be multiplied"]),
        ("return self.no_such_part(x)", ["AttributeError", "no_such_part"]),
    ],
)
def test_a_model_that_fails_keeps_its_words(checked_toy: Toy, line: str, words: list[str]) -> None:
    checked_toy.forward(line)
    checked_toy.refuses(
        checked_toy.check, checked_toy.toml, "batch of 4", "x (4, 2) float32", *words
    )


def test_a_model_that_fails_on_a_batch_of_one_says_so(checked_toy: Toy) -> None:
    checked_toy.forward("assert len(x) > 1, 'I need company'", "return self.fc(x)")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "batch of 1", "I need company")


# ---- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ('"probability"', "return torch.sigmoid(self.fc(x))"),
        ('"probability"', "return torch.sigmoid(self.fc(x))[:, 0]"),
        ('"probability"', "return F.softmax(torch.cat([self.fc(x), x], 1), 1)"),
        ('"two_logits"', "return x"),
        ('"multiclass"\npositive_class = 2', "return torch.cat([self.fc(x), x], 1)"),
        ('"logit"\npositive_class = 0', "return self.fc(x)"),
    ],
)
def test_every_head_passes_with_its_output(read_toy: Toy, head: str, line: str) -> None:
    read_toy.change('"logit"', head)
    read_toy.forward(line)
    passes(read_toy)


@pytest.mark.parametrize(
    ("head", "line", "words"),
    [
        ('"probability"', "return self.fc(x) * 0 + 3", ["'probability'", "holds 3.0"]),
        ('"probability"', "return self.fc(x) * 0 - 0.5", ["'probability'", "holds -0.5"]),
        ('"two_logits"', "return self.fc(x)", ["(4, 1)", "'two_logits' needs (n, 2)"]),
        ('"multiclass"\npositive_class = 2', "return x", ["(4, 2)", "'multiclass'", "k > 2"]),
        ('"probability"\npositive_class = 2', "return x.sigmoid()", ["(4, 2)", "k > 2"]),
    ],
)
def test_an_output_that_does_not_fit_the_head(
    checked_toy: Toy, head: str, line: str, words: list[str]
) -> None:
    checked_toy.change('"logit"', head)
    checked_toy.forward(line)
    text = checked_toy.refuses(checked_toy.check, checked_toy.toml, "head in [model]", *words)
    assert "np.float" not in text


# ---- the result of the step before ---------------------------------------------------------------


def test_without_samples_json_the_command_that_makes_it_is_named(toy: Toy) -> None:
    result = toy.check()
    assert result.exit_code == 1
    assert result.output == f"Error: {toy.samples} is missing; run `make all` to build it.\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": '])
def test_a_damaged_samples_json_is_named(checked_toy: Toy, text: str) -> None:
    checked_toy.samples.write_text(text)
    checked_toy.refuses(checked_toy.check, checked_toy.samples, "Remove it", "make all")
