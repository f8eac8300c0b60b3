"""Reads a .pth as data, never as code: `weights_only=True`, always."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

# Where training scripts put the state_dict in a checkpoint, likeliest first.
HOLDERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module",
    "weights", "params", "model_ema", "ema", "state_dict_ema", "generator", "classifier",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
WAY_OUT = "save it again where it was trained: torch.save(model.state_dict(), 'weights.pth')"


def read_state_dict(path: Path, key: str | None) -> dict[str, Any]:
    """name -> tensor, on the CPU, from a state_dict, a checkpoint or a TorchScript archive.

    `key` names the entry of a checkpoint that holds the state_dict, where that is not obvious.
    Raises click.ClickException in one to three sentences on anything else.
    """
    import torch

    _look(path)
    if _is_torchscript(path):
        try:
            script = torch.jit.load(str(path), map_location="cpu")
            return dict(script.state_dict())
        except RuntimeError as error:
            raise click.ClickException(
                f"The TorchScript archive {path} does not load: {_first(error)}"
            ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, eof and runtime errors, by the kind of damage
        raise click.ClickException(_why_not(path, error)) from None
    return _find(path, content, key)


def _look(path: Path) -> None:
    if not path.is_file():
        raise click.ClickException(
            f"The weights {path} do not exist; put the .pth there, or set weights in case.toml."
        )
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        raise click.ClickException(f"The weights {path} are an empty file; copy the .pth again.")
    if start.startswith(b"version https://git-lfs"):
        raise click.ClickException(
            f"The weights {path} are a Git LFS pointer, not the file itself; fetch it with "
            "`git lfs pull`."
        )
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            raise click.ClickException(
                f"The weights {path} are cut short or damaged (their zip directory is missing); "
                "copy the file again."
            ) from None
        if not any(name.endswith(("/data.pkl", "/constants.pkl")) for name in names):
            raise click.ClickException(
                f"The weights {path} are a zip, but not one that torch.save wrote (it holds "
                f"{', '.join(names[:3]) or 'nothing'}); point weights in case.toml at the .pth."
            )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _why_not(path: Path, error: Exception) -> str:
    words = str(error)
    if not _is_pickle(path):
        return (
            f"The weights {path} are no .pth: torch.save did not write that. Copy the file again."
        )
    if "Unsupported global" in words or "weights_only" in words.lower() or "GLOBAL" in words:
        found = ""
        if "GLOBAL " in words:
            found = f" ({words.split('GLOBAL ', 1)[1].split()[0]})"
        return (
            f"{path} holds Python objects besides tensors{found}, and loading those could run any "
            f"code. Only tensors are loaded here; {WAY_OUT}."
        )
    return f"The weights {path} do not load: {_first(error)} The file is damaged, or no .pth."


def _is_pickle(path: Path) -> bool:
    """Whether the file begins like one of torch.save: a zip, or a pickle of protocol 2 or later."""
    with open(path, "rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".") if lines else type(error).__name__) + "."


def _is_state_dict(content: Any) -> bool:
    import torch

    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) for name in content)
        and all(isinstance(value, torch.Tensor) for value in content.values())
    )


def _find(path: Path, content: Any, key: str | None) -> dict[str, Any]:
    if key is not None:
        inner = content.get(key) if isinstance(content, Mapping) else None
        if inner is None or not _is_state_dict(inner):
            raise click.ClickException(
                f"{path}: weights_key is {key!r}, and no state_dict stands there; it holds "
                f"{_keys(content)}."
            )
        return dict(inner)
    if _is_state_dict(content):
        return dict(content)
    if isinstance(content, Mapping):
        found = [name for name in HOLDERS if _is_state_dict(content.get(name))]
        others = [name for name, value in content.items() if _is_state_dict(value)]
        if len(found) == 1 or len(others) == 1:
            return dict(content[(found or others)[0]])
        if others:
            raise click.ClickException(
                f"{path} holds several state_dicts ({', '.join(str(name) for name in others)}); set weights_key in "
                "[model] to the right one."
            )
    raise click.ClickException(
        f"{path} holds no state_dict, but {_keys(content)}. To get one, {WAY_OUT}."
    )


def _keys(content: Any) -> str:
    if isinstance(content, Mapping) and not content:
        return f"an empty {type(content).__name__}"
    if isinstance(content, Mapping):
        return "the keys " + ", ".join(repr(name) for name in list(content)[:6])
    return f"a {type(content).__name__}"


def without_prefix(state: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what DataParallel and torch.compile put before all of them.

    Nothing is taken away once a name is one of `wanted`, those of the model.
    """
    for prefix in PREFIXES * 2:
        if not wanted.keys() & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state
