"""Tensors between Triton's Python backend and NumPy 2, by way of DLPack.

The stub in the wheel is compiled for NumPy 1. Under NumPy 2 it takes every element for 0 bytes long: inputs
then hold their first value throughout, and outputs are empty, without an error. What it does by
DLPack knows nothing of NumPy's structures and is right under either. Python models are written as
for any Triton: this replaces `Tensor(name, array)` and `as_numpy()` before they see them. DLPack has
no texts: a request with a TYPE_STRING input ends the stub, and a TYPE_STRING output is refused.

Imported by the copy of triton_python_backend_utils.py that scripts/triton/home.py makes.
"""

import ctypes
from typing import Any

import c_python_backend_utils  # type: ignore[import-not-found]
import numpy as np

NO_STRINGS = (
    "TYPE_STRING tensors are not served by the local mode: its Python stub was compiled for "
    "NumPy 1. Use MODE=docker"
)

_plain = c_python_backend_utils.Tensor
# What has taken over the memory has to say so, by a name that the stub gets wrong: NumPy would
# print an error about every tensor. The name is kept here as long as a capsule may point to it.
_USED = ctypes.c_char_p(b"used_dltensor")
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = ctypes.py_object, ctypes.c_char_p


class Tensor:
    """Stands for the stub's own class, of which it gives instances."""

    from_dlpack = staticmethod(_plain.from_dlpack)

    def __new__(cls, name: str, array: Any) -> Any:
        array = np.require(array, requirements=["C", "W"])
        if array.dtype.kind in "OSU":
            raise c_python_backend_utils.TritonModelException(NO_STRINGS)
        capsule = array.__dlpack__()
        tensor = _plain.from_dlpack(name, capsule)
        _set_name(capsule, _USED)
        return tensor


def as_numpy(tensor: Any) -> Any:
    """A copy: in shared memory the values are not aligned."""
    return np.array(np.from_dlpack(tensor))


_plain.as_numpy = as_numpy
c_python_backend_utils.Tensor = Tensor
