"""config.pbtxt as the message that it is, of Triton's own protobuf: written for a reader, and read back."""

import os
import textwrap
from collections.abc import Mapping, MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scripts.files import writing

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

# gRPC comes with the protobuf; it has nothing to do in a process that is forked, and would say so.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Who it is, what goes in and out, how it is run, what its backend is told. What is not listed follows.
ORDER = (
    "name", "backend", "platform", "max_batch_size", "input", "output", "dynamic_batching",
    "instance_group", "version_policy", "parameters", "optimization", "ensemble_scheduling",
    "model_warmup",
)  # fmt: skip
WIDTH = 100
MOST_WORDS = 200  # characters of what protobuf says: it may quote a line of any length


def to_text(config: "ModelConfig", comments: Mapping[str, str] | None = None) -> str:
    """The text of config.pbtxt: field by field in ORDER, the same for the same message.

    `comments`: field -> why it is there; for a field that is not there nothing is said.
    """
    parts = []
    for name in _fields(config):
        why = (comments or {}).get(name, "")
        parts += [f"# {line}\n" for line in textwrap.wrap(why, WIDTH - len("# "))]
        parts += [_text(one) for one in _elements(config, name)]
    return "".join(parts)


def _fields(config: "ModelConfig") -> list[str]:
    """The fields that are there: those of ORDER, then the others by their number."""
    there = [field.name for field, _ in config.ListFields()]
    return [name for name in ORDER if name in there] + [one for one in there if one not in ORDER]


def _elements(config: "ModelConfig", name: str) -> list["ModelConfig"]:
    """One message for each element of a field, with nothing else in it; a map by its keys."""
    value, empty = getattr(config, name), type(config)
    if isinstance(value, Mapping):
        return [empty(**{name: {key: value[key]}}) for key in sorted(value)]
    if isinstance(value, MutableSequence):
        return [empty(**{name: [one]}) for one in value]
    return [empty(**{name: value})]


def _text(element: "ModelConfig") -> str:
    """On one line where it fits."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    short = text_format.MessageToString(
        element, as_one_line=True, use_short_repeated_primitives=True
    )
    if len(short) <= WIDTH:
        return f"{short}\n"
    return text_format.MessageToString(element, use_short_repeated_primitives=True)


def write_text(
    path: Path, config: "ModelConfig", comments: Mapping[str, str] | None = None
) -> None:
    """Write the configuration, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(to_text(config, comments), encoding="utf-8")


def read_config(path: Path) -> "ModelConfig":
    """Read a configuration. Raises click.ClickException on what Triton could not read either."""
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except FileNotFoundError:
        raise click.ClickException(f"{path} is missing; run `make all` to build it.") from None
    except (text_format.ParseError, ValueError) as error:  # the second: no UTF-8
        raise click.ClickException(
            f"{path} is no configuration that Triton reads ({_words(error)}). Remove it and run "
            "`make all`."
        ) from None


def _words(error: Exception) -> str:
    """What protobuf says, on one line of a terminal; the place stands first, the reason last."""
    words = "".join(sign if sign.isprintable() else "?" for sign in str(error)).rstrip(" .")
    half = MOST_WORDS // 2
    return words if len(words) <= MOST_WORDS else f"{words[:half]} ... {words[-half:]}"
