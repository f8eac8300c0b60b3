"""Small pictures of samples: from image files and from arrays that are pictures, and from nothing else."""

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.case.read_case import Images, Input
from scripts.report.thumbnails import (
    LARGEST,
    SIDE,
    channels_first,
    encode,
    enlarged,
    scaled,
    thumbnail,
)


def noise(shape: tuple[int, ...]) -> Any:
    """The same in every test."""
    return np.random.default_rng(0).random(shape)


def of_array(array: Any, shape: tuple[int, ...], inputs: int = 1) -> bytes | None:
    one = Input("x", shape, "float32", None, ())
    case: Any = SimpleNamespace(images=None, inputs=(one,) * inputs)
    data: Any = SimpleNamespace(batch=lambda a, b: {"x": array[a:b]})
    return thumbnail(case, data, 0)


def of_image(path: Path, mode: str = "rgb") -> bytes | None:
    how = Images(path.parent, mode, None, None, "bilinear", None, None, None, "chw")
    case: Any = SimpleNamespace(images=how, inputs=())
    data: Any = SimpleNamespace(names=[path.name])
    return thumbnail(case, data, 0)


def pixels(content: bytes | None) -> Any:
    assert content is not None
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("shape", "first"),
    [((1, 8, 8), True), ((3, 4, 9), True), ((8, 8, 1), False), ((5, 7, 3), False), ((3, 3, 8), None),
     ((2, 8, 8), None), ((8, 8), None), ((30,), None), ((4, 3, 3), None), ((1, 3, 8, 8), None)],
)  # fmt: skip
def test_which_arrays_are_pictures(shape: tuple[int, ...], first: bool | None) -> None:
    assert channels_first(shape) is first
    assert (of_array(np.zeros((1, *shape), np.float32), shape) is None) is (first is None)


def test_several_inputs_are_no_picture() -> None:
    assert of_array(np.zeros((1, 1, 8, 8)), (1, 8, 8), inputs=2) is None


def test_an_array_is_scaled_and_enlarged() -> None:
    array = np.full((1, 1, 8, 8), 2.0)
    array[0, 0, 0, 0], array[0, 0, 7, 7] = -2.0, 6.0
    found = pixels(of_array(array, (1, 8, 8)))
    assert found.shape == (SIDE, SIDE)
    assert (found[:12, :12] == 0).all() and (found[-12:, -12:] == 255).all()
    assert found[0, 12] == 128


def test_channels_last_and_first_give_the_same_picture() -> None:
    array = noise((6, 5, 3))
    first = of_array(array.transpose(2, 0, 1)[None], (3, 6, 5))
    assert first == of_array(array[None], (6, 5, 3))
    assert pixels(first).shape == (96, 80, 3)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_one_value_everywhere(value: float) -> None:
    assert (scaled(np.full((1, 4, 4), value)) == 0).all()


def test_what_is_not_finite_is_black_and_does_not_spoil_the_rest() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 0] * 4).reshape(1, 4, 6)
    assert scaled(array)[0, :, 0].tolist() == [0, 0, 0, 255, 0, 128]


@pytest.mark.parametrize("shape", [(224, 224, 3), (32, 32, 3), (60, 96, 1), (1, 4000, 3)])
def test_noise_which_compresses_least_stays_small(shape: tuple[int, int, int]) -> None:
    content = encode(enlarged(scaled(noise(shape))))
    assert len(content) <= LARGEST
    assert max(pixels(content).shape[:2]) <= SIDE
    assert content == encode(enlarged(scaled(noise(shape))))


@pytest.mark.parametrize(("suffix", "mode", "read"), [
    ("png", "RGB", "rgb"), ("jpg", "RGB", "grey"), ("png", "P", "rgb"), ("png", "LA", "grey"),
    ("jpg", "CMYK", "rgb"), ("gif", "L", "rgb"),
])  # fmt: skip
def test_an_image_file(tmp_path: Path, suffix: str, mode: str, read: str) -> None:
    path = tmp_path / f"a b.{suffix}"
    Image.fromarray((noise((300, 500, 3)) * 255).astype(np.uint8)).convert(mode).save(path)
    content = of_image(path, read)
    found = pixels(content)
    assert found.shape[:2] == (58, 96) and (found.ndim == 2) is (read == "grey")
    assert content is not None and len(content) <= LARGEST
    assert of_image(path, read) == content


def test_an_image_that_cannot_be_shown_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"cannot be shown: it is gone\."):
        of_image(path)
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="does not decode"):
        of_image(path)
    Image.new("RGB", (50, 50)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="does not decode"):
        of_image(path)


def test_a_sample_that_is_not_there_any_more() -> None:
    with pytest.raises(ValueError, match="no sample 0"):
        of_array(np.zeros((0, 1, 8, 8)), (1, 8, 8))
