"""Opens the test data of a case, or its unlabelled traffic, batch by batch, in one order everywhere.

Arrays are memory-mapped and their pages given back as they are used; images are decoded as they
are asked for. So memory does not grow with the number of samples.
"""

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case
from scripts.data.images import decode
from scripts.files import read_json

GIVE_BACK_BYTES = 64 << 20

Batch = dict[str, NDArray[Any]]  # input -> (samples, *shape)
Run = Callable[[Batch], NDArray[Any]]  # a batch to its raw outputs, one row per sample


class Samples:
    """The samples of a samples.json or a traffic.json: `len()`, and by index

    `labels` (uint8, 1 = positive, shape (n,); without any, (0,), for traffic), `groups` (int64 codes,
    (n,), or None) and `names` (images only).
    """

    def __init__(self, case: Case, index: Path) -> None:
        content = read_json(index)
        self.case = case
        self.labelled = "labels" in content
        self.labels: NDArray[np.uint8] = (
            load(Path(content["labels"])) if self.labelled else np.zeros(0, np.uint8)
        )
        self.groups: NDArray[np.int64] | None = (
            load(Path(content["groups"])) if "groups" in content else None
        )
        self.names: list[str] | None = content.get("names")
        self._folder = Path(content["folder"]) if "folder" in content else None
        self._arrays = {name: load(Path(path)) for name, path in content["arrays"].items()}
        self._count: int = len(self.labels) if self.labelled else content["samples"]
        self._used = 0

    def __len__(self) -> int:
        return self._count

    def batch(self, start: int, stop: int) -> Batch:
        """Samples start..stop-1: input name -> array of shape (stop - start, *sample shape).

        Arrays are views that stay good; write to them only after copying.
        """
        stop = min(stop, len(self))
        if self.names is not None:
            images = [self._image(self.names[i]) for i in range(start, stop)]
            return {self.case.inputs[0].name: np.stack(images)}
        batch = {name: array[start:stop] for name, array in self._arrays.items()}
        self._used += sum(array.nbytes for array in batch.values())
        if self._used > GIVE_BACK_BYTES:
            self._give_back()
        return batch

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.batch(start, start + size)

    def some(self, count: int) -> Batch:
        """`count` samples for a trial, spread over the data; repeated where there are fewer."""
        spread = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)
        return self.rows(np.resize(spread, count).tolist())

    def rows(self, indices: list[int]) -> Batch:
        """The samples at `indices`, in that order, as one batch."""
        single = [self.batch(i, i + 1) for i in indices]
        return {name: np.concatenate([one[name] for one in single]) for name in single[0]}

    def _image(self, name: str) -> NDArray[Any]:
        assert self.case.images is not None
        folder = self._folder or self.case.images.folder
        return decode(folder / name, self.case.images, self.case.inputs[0])

    def _give_back(self) -> None:
        """Let the kernel drop pages already read: they would count as this process's memory."""
        for array in self._arrays.values():
            mapping = getattr(array, "_mmap", None)
            if isinstance(mapping, mmap.mmap):
                mapping.madvise(mmap.MADV_DONTNEED)
        self._used = 0


def write_header(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
    """Begin a .npy file whose values follow by `file.write`, first axis first.

    Written, not mapped: on a full disk a mapping ends the program with a bus error.
    """
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]


def load(path: Path) -> NDArray[Any]:
    """Memory-map a .npy file, read-only. Raises click.ClickException with a sentence."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise click.ClickException(f"{path} does not exist.") from None
    except (ValueError, OSError, EOFError) as error:
        if path.stat().st_size == 0:
            raise click.ClickException(f"{path} is empty.") from None
        try:  # an array without samples cannot be mapped, but can be read
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise click.ClickException(
                f"{path} is not a .npy array that can be used ({error}). "
                "Save it again with numpy.save, without objects."
            ) from None
    if not isinstance(array, np.ndarray):
        raise click.ClickException(
            f"{path} is a .npz, a zip of arrays; save the one that is meant with numpy.save."
        )
    return array
