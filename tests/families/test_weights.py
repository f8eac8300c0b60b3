"""The .pth and the factory: what is loaded, what is refused, and that loading runs no code."""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.toy_case import LOGITS, Toy, state

OTHER = {name: tensor + 1 for name, tensor in state().items()}


def under(prefix: str) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state().items()}


def loads(toy: Toy) -> None:
    """The weights that were meant are in the model, and the check passes."""
    np.testing.assert_allclose(toy.output(), LOGITS, rtol=0, atol=1e-6)
    result = toy.check()
    assert result.exit_code == 0, result.output


# ---- what is accepted ----------------------------------------------------------------------------


def test_weights_that_were_not_meant_give_other_outputs(read_toy: Toy) -> None:
    """The tests below could not tell otherwise."""
    read_toy.save_weights(OTHER)
    assert np.abs(read_toy.output() - LOGITS).min() > 0.1


@pytest.mark.parametrize(
    "content",
    [
        state(),
        OrderedDict(state()),
        {"state_dict": state(), "epoch": 3, "loss": 0.5},
        {"model_state_dict": state(), "optimizer_state_dict": {"lr": 0.1}, "note": "x"},
        {"model": state(), "args": {"width": 1}},
        {"my_best_net": state(), "epoch": 3},
        {"discriminator": OTHER, "generator": state()},
        {"average": OTHER, "model": state()},
        under("module."),
        {"state_dict": under("module.")},
        under("_orig_mod."),
        under("_orig_mod.module."),
        under("module._orig_mod."),
        {"fc.weight": state()["fc.weight"].clone().requires_grad_(), "fc.bias": OTHER["fc.bias"] - 1},
    ],
    ids=[
        "state_dict", "OrderedDict", "under state_dict", "under model_state_dict", "under model",
        "under the only key that fits", "generator", "likelier key", "DataParallel",
        "DataParallel in a checkpoint", "torch.compile", "compiled, then parallel",
        "parallel, then compiled", "requires grad",
    ],
)  # fmt: skip
def test_a_state_dict_is_found_where_training_scripts_put_it(read_toy: Toy, content: Any) -> None:
    read_toy.save_weights(content)
    loads(read_toy)


def test_the_old_format_of_torch_save_is_read(read_toy: Toy) -> None:
    read_toy.save_weights({"model": state()}, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(read_toy.folder / "weights.pth")
    loads(read_toy)


def test_a_torchscript_archive_is_read(read_toy: Toy) -> None:
    net = nn.Sequential(OrderedDict(fc=nn.Linear(2, 1)))
    net.load_state_dict(state())
    torch.jit.trace(net, torch.zeros(1, 2)).save(str(read_toy.folder / "weights.pth"))
    loads(read_toy)


def test_weights_key_chooses_among_several(read_toy: Toy) -> None:
    read_toy.save_weights({"student": OTHER, "teacher": state()})
    read_toy.change("max_batch = 4", 'max_batch = 4\nweights_key = "teacher"')
    loads(read_toy)


def test_weights_key_comes_before_a_likelier_key(read_toy: Toy) -> None:
    read_toy.save_weights({"state_dict": OTHER, "ema": under("module.")})
    read_toy.change("max_batch = 4", 'max_batch = 4\nweights_key = "ema"')
    loads(read_toy)


def test_a_model_whose_own_names_begin_with_module_keeps_them(read_toy: Toy) -> None:
    """They look as if DataParallel had put its prefix before them."""
    read_toy.change(
        "self.fc = nn.Linear(2, width)", "self.module = nn.Linear(2, width)", "model.py"
    )
    read_toy.change("self.fc(x)", "self.module(x)", "model.py")
    read_toy.save_weights({name.replace("fc", "module"): t for name, t in state().items()})
    loads(read_toy)


# ---- files that are refused ----------------------------------------------------------------------


def whole_model(path: Path) -> None:
    torch.save(nn.Linear(2, 1), path)


def checkpoint_with_model(path: Path) -> None:
    torch.save({"model": nn.Linear(2, 1), "epoch": 1}, path)


def old_whole_model(path: Path) -> None:
    torch.save(nn.Linear(2, 1), path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [whole_model, checkpoint_with_model, old_whole_model])
def test_a_pickled_model_is_refused_with_the_way_out(
    checked_toy: Toy, write: Callable[[Path], None]
) -> None:
    path = checked_toy.folder / "weights.pth"
    write(path)
    words = ["torch.nn.modules.linear.Linear", "torch.save(model.state_dict()"]
    checked_toy.refuses(checked_toy.check, path, "any code", *words)


class Evil:
    """Unpickled, it makes a file called `ran`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def evil_zip(path: Path) -> None:
    torch.save(Evil(), path)


def evil_old(path: Path) -> None:
    torch.save(Evil(), path, _use_new_zipfile_serialization=False)


def evil_beside_the_weights(path: Path) -> None:
    torch.save({"state_dict": state(), "extra": Evil()}, path)


def evil_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(), protocol=2))


@pytest.mark.parametrize("write", [evil_zip, evil_old, evil_beside_the_weights, evil_pickle])
def test_loading_runs_no_code(checked_toy: Toy, write: Callable[[Path], None]) -> None:
    path = checked_toy.folder / "weights.pth"
    write(path)
    checked_toy.refuses(checked_toy.check, path, "any code", "torch.save(model.state_dict()")
    assert not Path("ran").exists()


def test_the_malicious_file_of_the_test_before_works(toy: Toy) -> None:
    """Loaded without care it does run: the test above can fail."""
    evil_beside_the_weights(toy.folder / "weights.pth")
    torch.load(toy.folder / "weights.pth", weights_only=False)
    assert Path("ran").exists()


def cut_at(share: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cut


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_file_cut_short_says_so(checked_toy: Toy, share: float) -> None:
    path = checked_toy.folder / "weights.pth"
    cut_at(share)(path)
    checked_toy.refuses(checked_toy.check, path, "cut short", "copy the file again")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_of_the_old_format_cut_short_is_damaged(checked_toy: Toy, share: float) -> None:
    checked_toy.save_weights(state(), _use_new_zipfile_serialization=False)
    path = checked_toy.folder / "weights.pth"
    cut_at(share)(path)
    text = checked_toy.refuses(checked_toy.check, path, "damaged")
    assert "Python objects" not in text


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404: not found</html>",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"hello world",
        bytes(200),
        b"\x14\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}',
    ],
    ids=["html", "png", "text", "zeros", "safetensors"],
)
def test_a_file_of_another_kind_is_not_taken_for_a_pickle(checked_toy: Toy, content: bytes) -> None:
    path = checked_toy.folder / "weights.pth"
    path.write_bytes(content)
    text = checked_toy.refuses(checked_toy.check, path, "no .pth")
    assert "Python objects" not in text


def test_a_git_lfs_pointer_says_how_to_fetch_the_file(checked_toy: Toy) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    path = checked_toy.write("weights.pth", pointer)
    checked_toy.refuses(checked_toy.check, path, "Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize(
    ("names", "words"), [(["a.txt", "b.txt"], "a.txt, b.txt"), ([], "nothing")]
)
def test_a_zip_of_something_else_says_what_it_holds(
    checked_toy: Toy, names: list[str], words: str
) -> None:
    path = checked_toy.folder / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "hello")
    checked_toy.refuses(checked_toy.check, path, "zip", "torch.save", words)


def test_an_empty_file_says_so(checked_toy: Toy) -> None:
    path = checked_toy.write("weights.pth", "")
    checked_toy.refuses(checked_toy.check, path, "empty")


def test_a_missing_file_says_so(checked_toy: Toy) -> None:
    path = checked_toy.folder / "weights.pth"
    path.unlink()
    checked_toy.refuses(checked_toy.check, path, "do not exist", "case.toml")


# ---- contents that are refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "lr": 0.5}, ["no state_dict", "'epoch', 'lr'"]),
        ({}, ["no state_dict"]),
        (torch.zeros(3), ["no state_dict", "a Tensor"]),
        ([torch.zeros(3)], ["no state_dict", "a list"]),
        ({"fc.weight": torch.zeros(1, 2), "epoch": 3}, ["no state_dict", "'fc.weight', 'epoch'"]),
        ({"student": OTHER, "teacher": state()}, ["student, teacher", "weights_key"]),
    ],
)
def test_a_file_without_one_clear_state_dict(
    checked_toy: Toy, content: Any, words: list[str]
) -> None:
    checked_toy.save_weights(content)
    checked_toy.refuses(checked_toy.check, checked_toy.folder / "weights.pth", *words)


def test_an_empty_checkpoint_is_said_to_be_empty(checked_toy: Toy) -> None:
    checked_toy.save_weights({})
    text = checked_toy.refuses(checked_toy.check, checked_toy.folder / "weights.pth")
    assert "keys ." not in text


@pytest.mark.parametrize(
    ("content", "held"),
    [({"student": OTHER, "epoch": 3}, "'student', 'epoch'"), (state(), "'fc.weight', 'fc.bias'")],
)
@pytest.mark.parametrize("key", ["teacher", "epoch"])
def test_a_weights_key_that_holds_none_lists_those_there(
    checked_toy: Toy, content: Any, held: str, key: str
) -> None:
    checked_toy.save_weights(content)
    checked_toy.change("max_batch = 4", f'max_batch = 4\nweights_key = "{key}"')
    path = checked_toy.folder / "weights.pth"
    checked_toy.refuses(checked_toy.check, path, f"weights_key is '{key}'", held)


def test_weights_of_another_architecture_name_the_keys_on_both_sides(checked_toy: Toy) -> None:
    names = ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.mean")
    checked_toy.save_weights({name: torch.zeros(4, 3) for name in names})
    checked_toy.refuses(
        checked_toy.check,
        checked_toy.folder / "weights.pth",
        "model.py:build",
        "the model has fc.weight (1, 2), fc.bias (1,), which the file lacks",
        "the file has conv.weight (4, 3), conv.bias (4, 3), bn.weight (4, 3) and 2 more",
    )


@pytest.mark.parametrize("gone", ["fc.weight", "fc.bias"])
def test_one_missing_tensor_is_enough_to_refuse(checked_toy: Toy, gone: str) -> None:
    content = state()
    del content[gone]
    checked_toy.save_weights(content)
    text = checked_toy.refuses(checked_toy.check, f"the model has {gone}", "the file lacks")
    assert "which the model lacks" not in text


def test_one_tensor_too_many_is_enough_to_refuse(checked_toy: Toy) -> None:
    checked_toy.save_weights(state() | {"fc2.weight": torch.zeros(1, 1)})
    text = checked_toy.refuses(checked_toy.check, "the file has fc2.weight (1, 1)")
    assert "which the file lacks" not in text


def test_other_shapes_are_named_on_both_sides(checked_toy: Toy) -> None:
    checked_toy.save_weights(state(width=3))
    checked_toy.refuses(
        checked_toy.check,
        checked_toy.folder / "weights.pth",
        "fc.weight is (3, 2) in the file and (1, 2) in the model",
        "fc.bias is (3,) in the file and (1,) in the model",
        "arguments",
    )


# ---- the factory ---------------------------------------------------------------------------------


def test_arguments_reach_the_factory(read_toy: Toy) -> None:
    read_toy.change("max_batch = 4", "max_batch = 4\narguments = { width = 2 }")
    read_toy.change('"logit"', '"two_logits"')
    read_toy.save_weights(state(width=2))
    np.testing.assert_allclose(read_toy.output(), np.hstack([LOGITS, LOGITS]), rtol=0, atol=1e-6)


def test_a_class_is_a_factory_too(read_toy: Toy) -> None:
    read_toy.change("model.py:build", "model.py:Net")
    read_toy.change("max_batch = 4", "max_batch = 4\narguments = { width = 1 }")
    loads(read_toy)


def test_the_model_file_imports_its_neighbour(read_toy: Toy) -> None:
    read_toy.write("toy_layers.py", "from torch.nn import Linear as Layer\n")
    read_toy.change("import torch\n", "import torch\nfrom toy_layers import Layer\n", "model.py")
    read_toy.change("nn.Linear(2, width)", "Layer(2, width)", "model.py")
    loads(read_toy)
    assert not list(read_toy.folder.rglob("__pycache__")), "the data folder stays as it is"


def test_a_factory_of_an_installed_package(
    read_toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site/toy_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text((read_toy.folder / "model.py").read_text())
    (read_toy.folder / "model.py").unlink()
    monkeypatch.syspath_prepend(tmp_path / "site")
    read_toy.change("model.py:build", "toy_package.nets:build")
    loads(read_toy)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("build", ["'build'", "model.py:function", "package.module:callable"]),
        ("model.py", ["'model.py'", "model.py:function"]),
        (":build", ["':build'", "model.py:function"]),
        ("modell.py:build", ["data/toy/modell.py", "does not exist"]),
        ("model.py:biuld", ["'model.py:biuld'", "no callable 'biuld'"]),
        ("model.py:torch", ["'model.py:torch'", "no callable 'torch'"]),
        ("model.py:", ["'model.py:'", "no callable"]),
        ("no_such_package.nets:build", ["no_such_package.nets", "ModuleNotFoundError"]),
        ("collections:OrderedDict", ["returned a OrderedDict", "torch.nn.Module"]),
    ],
)
def test_a_factory_that_is_not_there(checked_toy: Toy, factory: str, words: list[str]) -> None:
    checked_toy.change("model.py:build", factory)
    checked_toy.refuses(checked_toy.check, checked_toy.toml, *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("raise RuntimeError('no such layer')", ["raised RuntimeError", "no such layer"]),
        ("return {}['depth']", ["raised KeyError", "depth"]),
        ("return None", ["returned a NoneType", "torch.nn.Module"]),
        ("return Net", ["returned a type", "torch.nn.Module"]),
        ("return Net(width).state_dict()", ["returned a OrderedDict", "torch.nn.Module"]),
        ("import sys; sys.exit(0)", ["SystemExit"]),
    ],
)
def test_a_factory_that_gives_no_model_keeps_its_words(
    checked_toy: Toy, line: str, words: list[str]
) -> None:
    checked_toy.change("return Net(width)", line, "model.py")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "'model.py:build'", *words)


def test_arguments_that_the_factory_does_not_take(checked_toy: Toy) -> None:
    checked_toy.change("max_batch = 4", "max_batch = 4\narguments = { depth = 2 }")
    checked_toy.refuses(checked_toy.check, checked_toy.toml, "TypeError", "'depth'")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import no_such_package", ["ModuleNotFoundError", "no_such_package"]),
        ("def (", ["SyntaxError"]),
        ("1 / 0", ["ZeroDivisionError", "division by zero"]),
        ("import sys; sys.exit(0)", ["SystemExit"]),
        ("import argparse; argparse.ArgumentParser().parse_args(['--lr'])", ["SystemExit"]),
    ],
)
def test_a_model_file_that_does_not_import_keeps_its_words(
    checked_toy: Toy, line: str, words: list[str]
) -> None:
    """A training script that exits where it stands must not pass for a success."""
    checked_toy.change("import torch\n", f"import torch\n{line}\n", "model.py")
    step = checked_toy.check
    before = checked_toy.contents()
    result = step()
    assert result.exit_code != 0, "nothing was checked, and that passed for a success"
    error = result.output[result.output.find("Error: ") :]
    assert all(word in error for word in ["data/toy/case.toml", "model.py", *words]), result.output
    assert checked_toy.contents() == before
