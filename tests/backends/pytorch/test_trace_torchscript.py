"""TorchScript: the trace gives the model's output, and what a trace gets wrong is refused."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from scripts.backends.pytorch import prove as prove_precision
from scripts.backends.pytorch import trace_torchscript
from scripts.backends.pytorch.open import open_torchscript
from scripts.case.read_case import read_case
from tests.toy_case import INPUTS, Toy, run, says, state

OUT = Path("model_repository/toy_torchscript_fp32/1/model.pt")


def trace(toy: Toy) -> Result:
    return run(trace_torchscript.main, toy.toml, "--samples", toy.samples, "--device", "cpu",
               "--out", OUT)  # fmt: skip


def test_the_trace_gives_the_model_s_output(read_toy: Toy) -> None:
    done = trace(read_toy)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("torchscript_fp32: 0.0")
    assert done.output.endswith("same output as the model at batch 1, 3, 4\n")
    with open_torchscript(OUT, "cpu") as run_it:
        for size in (1, 2, 6):
            assert np.array_equal(run_it({"x": INPUTS[:size]}), read_toy.output()[:size])


def test_the_arguments_are_named_as_the_inputs(read_toy: Toy) -> None:
    """Triton's PyTorch backend finds them by name."""
    import torch

    assert trace(read_toy).exit_code == 0
    arguments = torch.jit.load(str(OUT)).forward.schema.arguments
    assert [one.name for one in arguments] == ["self", "x"]


@pytest.mark.parametrize(
    "lines",
    [
        ["return self.fc(x) * (2.0 if x.shape[0] > 3 else 1.0)"],
        ["z = self.fc(x)", "for _ in range(x.shape[0]):", "    z = z + 1", "return z"],
    ],
)
def test_a_branch_that_the_trace_fixes_is_refused(read_toy: Toy, lines: list[str]) -> None:
    read_toy.forward(*lines)
    text = says(
        trace(read_toy), "does not give the model's output at batch", 'skip = ["torchscript_'
    )
    assert "data/toy/case.toml" in text
    assert not OUT.exists()
    assert not list(OUT.parent.glob("*.tmp"))


def test_a_fixed_batch_is_refused_and_an_earlier_trace_stays(read_toy: Toy) -> None:
    assert trace(read_toy).exit_code == 0
    before = OUT.read_bytes()
    read_toy.forward("n = int(x.shape[0])", "return self.fc(x.reshape(n, 2)).reshape(n, 1)")
    says(trace(read_toy), "The trace of data/toy/case.toml fails at batch 1", "fixes the batch")
    assert OUT.read_bytes() == before


def test_what_torch_cannot_trace_keeps_its_words(read_toy: Toy) -> None:
    read_toy.forward("raise RuntimeError('no trace of me')")
    says(trace(read_toy), "torch.jit.trace failed for data/toy/case.toml: no trace of me")


def test_an_input_that_cannot_name_an_argument(read_toy: Toy) -> None:
    read_toy.change('name = "x"', 'name = "lambda"')
    read_toy.read()
    says(trace(read_toy), "the input name 'lambda' cannot name an argument in TorchScript")


def test_a_file_that_is_none(read_toy: Toy) -> None:
    import click

    OUT.parent.mkdir(parents=True)
    OUT.write_bytes(b"no archive")
    with (
        pytest.raises(click.ClickException, match=r"PyTorch does not load .*model\.pt on cpu"),
        open_torchscript(OUT, "cpu"),
    ):
        pass


def test_its_precision_is_proven_from_the_file(read_toy: Toy) -> None:
    import json

    assert trace(read_toy).exit_code == 0
    out = read_toy.results / "precision.json"
    options = ("--variant", "torchscript_fp32", "--model", OUT, "--out", out)
    done = run(prove_precision.main, *options)
    assert done.exit_code == 0, done.output
    metrics = json.loads(out.read_text())["metrics"]
    assert metrics["weight_bytes"] == sum(tensor.nbytes for tensor in state().values()) == 12
    assert metrics["weight_share_float16"] == 0
    read_toy.forward("return self.fc(x) + torch.ones(1, dtype=torch.float16).float()")
    read_toy.change(
        "self.fc = nn.Linear(2, width)",
        "self.fc = nn.Linear(2, width)\n        self.register_buffer('h', torch.ones(1).half())",
        "model.py",
    )
    read_toy.change("+ torch.ones(1, dtype=torch.float16).float()", "* self.h.float()", "model.py")
    import torch

    read_toy.save_weights(state() | {"h": torch.ones(1).half()})
    assert trace(read_toy).exit_code == 0
    says(
        run(prove_precision.main, *options), "is called torchscript_fp32, and holds float16 weights"
    )
    assert read_case(read_toy.toml).max_batch == 4
