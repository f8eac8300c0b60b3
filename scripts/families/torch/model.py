"""Builds the PyTorch model of a case: the factory, the weights, inputs by name, one output."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case
from scripts.data.samples import Batch
from scripts.families.torch.weights import read_state_dict, without_prefix

if TYPE_CHECKING:
    import torch


def load_model(case: Case) -> "torch.nn.Module":
    """The model with its weights, in eval mode, on the CPU.

    It takes the inputs of case.toml, in that order, and gives the one output that counts.
    Raises click.ClickException where the factory, the weights or their fit is wrong.
    """
    model = _build(case)
    _fill(case, model, read_state_dict(case.weights, case.weights_key))
    return _selected(case, model.eval()).eval()


def exact_float32() -> None:
    """True float32 in the reference: no TF32, no choice of algorithm by timing."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def set_torch(device: str, threads: int) -> None:
    """True float32, and so many threads. Raises click.ClickException without a GPU to use."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException(
            "PyTorch was asked for a GPU and finds none (torch.cuda.is_available() is False). "
            "Check the driver, or run with GPU=no."
        )
    exact_float32()
    torch.set_num_threads(threads)


def run_torch(model: "torch.nn.Module", batch: Batch, device: str) -> NDArray[Any]:
    """The output for one batch, as a NumPy array. The batch is copied: a model may write to it."""
    import torch

    tensors = [torch.from_numpy(np.array(array)).to(device) for array in batch.values()]
    with torch.inference_mode():
        output: NDArray[Any] = model(*tensors).cpu().numpy()
    return output


def _build(case: Case) -> "torch.nn.Module":
    import torch

    place, _, name = case.factory.rpartition(":")
    if not place:
        raise click.ClickException(
            f"{case.path}: factory is {case.factory!r}; write 'model.py:function' or "
            "'package.module:callable'."
        )
    factory = getattr(_module(case, place), name, None)
    if not callable(factory):
        raise click.ClickException(
            f"{case.path}: factory is {case.factory!r}, and {place} has no callable {name!r}."
        )
    try:
        model = factory(**case.arguments)
    except (Exception, SystemExit) as error:  # whatever the user's code raises: its words are kept
        raise click.ClickException(
            f"{case.path}: the factory {case.factory!r} raised {type(error).__name__}: {error}"
        ) from None
    if not isinstance(model, torch.nn.Module):
        raise click.ClickException(
            f"{case.path}: the factory {case.factory!r} returned a {type(model).__name__}; it must "
            "return a torch.nn.Module."
        )
    return model


def _module(case: Case, place: str) -> Any:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = case.folder / place
        if not path.is_file():
            raise click.ClickException(f"{case.path}: factory names {path}, which does not exist.")
        sys.path.insert(0, str(case.folder.resolve()))  # so that it can import its neighbours
        sys.dont_write_bytecode = True  # the data folder stays as it is
        spec = importlib.util.spec_from_file_location(f"verdict_case_{Path(place).stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except click.ClickException:
        raise
    except (Exception, SystemExit) as error:  # whatever importing the user's code raises
        raise click.ClickException(
            f"{case.path}: importing {place} for the factory raised {type(error).__name__}: {error}"
        ) from None


def _fill(case: Case, model: "torch.nn.Module", state: dict[str, Any]) -> None:
    wanted = model.state_dict()
    state = without_prefix(state, wanted)
    missing = [name for name in wanted if name not in state]
    unknown = [name for name in state if name not in wanted]
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(wanted[name].shape)} in the model"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or unknown or shapes:
        parts = []
        if missing:
            parts.append(f"the model has {_some(missing, wanted)}, which the file lacks")
        if unknown:
            parts.append(f"the file has {_some(unknown, state)}, which the model lacks")
        if shapes:
            parts.append(
                "; ".join(shapes[:3]) + (f"; and {len(shapes) - 3} more" * (len(shapes) > 3))
            )
        raise click.ClickException(
            f"{case.weights} does not fit the model of {case.factory!r}: {'; '.join(parts)}. "
            "Check the factory and its arguments."
        )
    model.load_state_dict(state)


def _some(names: list[str], state: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} {tuple(state[name].shape)}" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _selected(case: Case, model: "torch.nn.Module") -> "torch.nn.Module":
    """Wrap the model: inputs in the order of case.toml, by name where forward() has those names."""
    import torch

    names = [one.name for one in case.inputs]
    parameters = inspect.signature(model.forward).parameters
    by_name = all(name in parameters for name in names)

    class Selected(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> Any:
            if by_name:
                output = self.model(**dict(zip(names, tensors, strict=True)))
            else:
                output = self.model(*tensors)
            return _pick(case, output)

    return Selected()


def _pick(case: Case, output: Any) -> Any:
    """The output that counts. Raises click.ClickException when case.toml does not say which."""
    import torch

    picked = _choose(case, output)
    if not isinstance(picked, torch.Tensor):
        raise click.ClickException(
            f"{case.path}: the output that counts is a {type(picked).__name__}, not a tensor. "
            "Set output in [model] to one that is, or correct the model."
        )
    return picked


def _choose(case: Case, output: Any) -> Any:
    import torch

    if isinstance(output, torch.Tensor):
        if case.output in (None, 0):
            return output
        raise click.ClickException(
            f"{case.path}: output is {case.output!r}, and the model has a single output; leave it out."
        )
    if isinstance(output, dict):
        known: list[Any] = list(output)
    elif isinstance(output, (tuple, list)):
        known = list(range(len(output)))
        fields = getattr(output, "_fields", ())
        if case.output in fields:
            return getattr(output, str(case.output))
    else:
        raise click.ClickException(
            f"{case.path}: the model returns a {type(output).__name__}, not tensors."
        )
    if case.output is None and len(known) == 1:
        return output[known[0]]
    if case.output not in known:
        raise click.ClickException(
            f"{case.path}: the model has the outputs {', '.join(repr(name) for name in known)}; set "
            f"output in [model] to the one that holds the {case.head}"
            + ("." if case.output is None else f" (found: {case.output!r}).")
        )
    return output[case.output]
